"""In which encoding a text file is written, and where it is not what it claims to be."""

from __future__ import annotations

import codecs
import io
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from thriftune.errors import BadInput

CHUNK_BYTES = 4 << 20
_BOMS = (  # the longer first: UTF-32's begins with UTF-16's
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_EVIDENCE_BYTES = 200_000
_GUESSABLE_BYTES = 32  # of other than ASCII; below that a statistical guess at an encoding is noise
_TELLING_BYTES = 16  # a file that is shorter shows no pattern of NULs
_PLAUSIBLE_SHARE = 0.7

# Western European text in cp1252: letters that touch a letter, words of one letter, and typographic signs. The letters
# left out hardly occur next to these; they are what broken UTF-8 and binary bytes look like.
_WESTERN = re.compile(
    "(?<=[A-Za-z])[À-ÖØ-öø-ýÿ]|[À-ÏÑ-ÖØ-Ýß-ïñ-öø-ý](?=[A-Za-z])"
    "|(?<![^\\W\\d_])[àáèéíóôöøåæêúÀÁÈÉÍÓÔÖØÅÆÊÚ](?![^\\W\\d_])"
    "|[‘’‚“”„–—…€™•‰‹›£§©®°²³´·¹º»«¼½¾¿¡±µª¢¥\xa0šžœŠŽŒƒ]"
)
_FOREIGN = re.compile(r"[^\x00-\x7f]")
_ESCAPED = re.compile("[\udc80-\udcff]")


@dataclass(frozen=True)
class TextFacts:
    """What one pass over a text file told.

    Args:
        encoding: the codec's name.
        lines: how many lines it has, at most.
        has_nul: there are NUL characters in it.
        has_undecodable: some bytes are not valid in this encoding.
        notes: what was detected, a sentence each.
    """

    encoding: str
    lines: int
    has_nul: bool
    has_undecodable: bool
    notes: tuple[str, ...] = ()

    @property
    def needs_care(self) -> bool:
        """Some row may hold a NUL or bytes that are not valid."""
        return self.has_nul or self.has_undecodable


def examine(path: Path, file: str, encoding: str | None = None) -> TextFacts:
    """Find out a text file's encoding by its byte order mark, by validity, then by plausibility.

    A file that is valid UTF-8 is UTF-8. Otherwise, if most lines with other than ASCII bytes are valid UTF-8, it is
    UTF-8 with bad rows; if they read as Western European text it is cp1252, of which Latin-1 is a part; else
    charset-normalizer is asked where there is enough to judge by; else it is UTF-8 with bad rows.

    Args:
        path: the file.
        file: its name for messages.
        encoding: the encoding that the user states, if any.

    Raises:
        BadInput: the stated encoding is unknown or does not fit, or a UTF-16 or UTF-32 file is damaged.
    """
    stated = encoding is not None
    head = _head(path)
    if encoding is None:
        encoding = next((name for bom, name in _BOMS if head.startswith(bom)), None) or _utf16_without_bom(head)
    elif _codec(encoding, file) == "utf-8" and head.startswith(codecs.BOM_UTF8):
        encoding = "utf-8-sig"
    lines, has_nul, valid = _pass(path, encoding or "utf-8")
    if valid:
        return TextFacts(encoding or "utf-8", lines, has_nul, False, _note(encoding or "utf-8", stated))
    if encoding is not None and _codec(encoding, file).startswith(("utf-16", "utf-32")):
        raise BadInput(
            what="the text is damaged",
            where=file,
            found=f"bytes that are not valid {encoding}",
            expected=f"a whole {encoding} file, as its first bytes promise",
            way_out="export it again, as UTF-8",
        )
    if encoding is None:
        encoding = _by_evidence(path)
    _, has_nul, valid = _pass(path, encoding)
    return TextFacts(encoding, lines, has_nul, not valid, _note(encoding, stated))


def open_text(path: Path, facts: TextFacts) -> io.TextIOWrapper:
    """The file as text; bytes that are not valid become lone surrogates, line ends stay as they are."""
    return path.open(encoding=facts.encoding, errors="surrogateescape", newline="")


def broken_part(text: str) -> tuple[str, str] | None:
    """Why a row's text cannot be used (reason, what was found), or None: a NUL, or bytes that were not valid."""
    if "\0" in text:
        return "NUL byte", "a NUL byte"
    escaped = _ESCAPED.search(text)
    if escaped:
        return "invalid encoding", f"byte 0x{ord(escaped.group()) - 0xDC00:02x}"
    return None


def _head(path: Path) -> bytes:
    with path.open("rb") as stream:
        return stream.read(1 << 16)


def _note(encoding: str, stated: bool) -> tuple[str, ...]:
    if stated or encoding in {"utf-8", "utf-8-sig"}:
        return ()
    return (f"read as {encoding}, by its bytes; give `encoding` if that is wrong",)


def _codec(encoding: str, file: str) -> str:
    """The codec's canonical name."""
    try:
        return codecs.lookup(encoding).name
    except LookupError:
        raise BadInput(
            what="the encoding is unknown",
            where=file,
            found=encoding,
            expected="a name such as utf-8, latin-1 or cp1252",
            way_out="leave `encoding` out to have it detected",
        ) from None


def _utf16_without_bom(head: bytes) -> str | None:
    """UTF-16 text in a Latin script has a NUL in every second byte, and hardly any in the others."""
    if len(head) < _TELLING_BYTES:
        return None
    even, odd = head[0::2].count(0), head[1::2].count(0)
    half = len(head) / 2
    if odd > 0.4 * half and even < 0.05 * half:
        return "utf-16-le"
    if even > 0.4 * half and odd < 0.05 * half:
        return "utf-16-be"
    return None


def _pass(path: Path, encoding: str) -> tuple[int, bool, bool]:
    """(lines at most, whether there is a NUL character, whether all bytes are valid), over the whole file."""
    decoder = codecs.getincrementaldecoder(encoding)()
    lines, has_nul = 1, False
    with path.open("rb") as stream:
        while True:
            data = stream.read(CHUNK_BYTES)
            try:
                text = decoder.decode(data, final=not data)
            except UnicodeDecodeError:
                return _count_lines(path), has_nul, False
            lines += text.count("\n") + text.count("\r")
            has_nul = has_nul or "\0" in text
            if not data:
                return lines, has_nul, True


def _count_lines(path: Path) -> int:
    with path.open("rb") as stream:
        return 1 + sum(data.count(b"\n") + data.count(b"\r") for data in iter(lambda: stream.read(CHUNK_BYTES), b""))


def _foreign_lines(path: Path) -> Iterator[bytes]:
    with path.open("rb") as stream:
        yield from (line for line in stream if not line.isascii())


def _by_evidence(path: Path) -> str:
    """The encoding of a file that is not valid UTF-8 as a whole."""
    evidence, utf8_lines, other_lines = bytearray(), 0, 0
    for line in _foreign_lines(path):
        try:
            line.decode()
            utf8_lines += 1
        except UnicodeDecodeError:
            other_lines += 1
            if len(evidence) < _EVIDENCE_BYTES:
                evidence += line[:_EVIDENCE_BYTES]
    if utf8_lines >= other_lines:
        return "utf-8"
    if _looks_western(bytes(evidence)):
        return "cp1252"
    return _guess(bytes(evidence)) or "utf-8"


def _looks_western(evidence: bytes) -> bool:
    text = evidence.decode("cp1252", errors="surrogateescape")
    return len(_WESTERN.findall(text)) >= _PLAUSIBLE_SHARE * len(_FOREIGN.findall(text))


def _guess(evidence: bytes) -> str | None:
    """charset-normalizer's best match, where it recognises the language and there is enough to judge by."""
    if sum(byte > 0x7F for byte in evidence) < _GUESSABLE_BYTES:
        return None
    from charset_normalizer import from_bytes

    best = from_bytes(evidence).best()
    return best.encoding if best is not None and best.coherence > 0 else None
