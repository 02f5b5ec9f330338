"""Reading the public price catalogue that SkyPilot keeps, from the network or from a folder.

Its form is one `vms.csv` a provider, with (at least) the columns InstanceType, AcceleratorName, AcceleratorCount,
Region, Price and SpotPrice, in any order, one row for each machine and zone
(https://github.com/skypilot-org/skypilot-catalog, schema v8). Only rows with a GPU or a TPU are taken, by these rules:

- A region's price is the highest of its zones': a plan must hold whichever zone one gets.
- No price, a price of 0, and on GCP a price of 700 mean "not known" there (skypilot-org/skypilot pull requests 4218 and
  5289): such a row is left out, never filled in.
- A spot price that is not below the on-demand price of its zone says that nothing is on offer: left out.
- A row with an accelerator but no machine is the price of the accelerator alone, without its host: left out, except
  for TPUs, which are rented whole and go by the accelerator's name.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import TYPE_CHECKING, Any

from thriftune.clock import utc
from thriftune.errors import BadInput
from thriftune.money.history import renew
from thriftune.money.prices import CATALOGUE_FILE, Price, parse_prices, thriftune_home

if TYPE_CHECKING:
    import httpx

CATALOGUE_URL = "https://raw.githubusercontent.com/skypilot-org/skypilot-catalog/master/catalogs/v8"

# Those who rent out machines of their own at list prices; marketplaces, whose offers come and go by the hour, are not
# read, nor is Seeweb, an Italian provider for which the catalogue does not say in what currency its prices are.
PROVIDERS = (
    "aws",
    "azure",
    "cudo",
    "do",
    "gcp",
    "hyperbolic",
    "hyperstack",
    "lambda",
    "nebius",
    "oci",
    "paperspace",
    "runpod",
    "verda",
)
NEEDED = ("InstanceType", "AcceleratorName", "AcceleratorCount", "Region", "Price", "SpotPrice")
NOT_KNOWN = {"gcp": Decimal(700)}
TIMEOUT_SECONDS = 60.0


@dataclass(frozen=True)
class Updated:
    """What an update did.

    Args:
        path: the price file that was written.
        rows: how many prices each provider gave.
        absent: providers that the catalogue did not have.
        replaced: how many prices changed, the old ones being kept in the history.
    """

    path: Path
    rows: dict[str, int]
    absent: tuple[str, ...]
    replaced: int = 0


def update(
    now: float,
    origin: str | Path = CATALOGUE_URL,
    target: Path | None = None,
    providers: Iterable[str] = PROVIDERS,
) -> Updated:
    """Read the catalogue again and replace the user's price file with it, whole or not at all.

    Args:
        now: the instant (UTC seconds) whose day the prices are of.
        origin: an http(s) address, or a folder, under which `<provider>/vms.csv` lie.
        target: the price file; by default the one in `thriftune_home()`.
        providers: whom to read.

    Raises:
        BadInput: the catalogue cannot be reached, holds none of the providers, or a row cannot be read; nothing is
            written then.
    """
    path = thriftune_home() / CATALOGUE_FILE if target is None else target
    texts = dict(_from_network(origin, providers) if _is_address(origin) else _from_folder(Path(origin), providers))
    prices: list[Price] = []
    rows: dict[str, int] = {}
    for provider, (where, text) in texts.items():
        found = read_catalogue(text, provider, where, utc(now).date())
        prices += found
        rows[provider] = len(found)
    if not prices:
        raise BadInput(
            "the catalogue holds no prices",
            where=str(origin),
            found=f"{len(texts)} of the files <provider>/vms.csv, with no row that has an accelerator and a price",
            expected="files such as " + "/".join((str(origin).rstrip("/"), "aws", "vms.csv")),
            way_out="name the folder or the address of a catalogue of schema v8",
        )
    replaced = renew(path, now, lambda _: prices)
    return Updated(path, rows, tuple(name for name in providers if name not in texts), replaced)


def update_table(now: float, origin: str, target: Path | None = None) -> Updated:
    """Read a price file in the table's own form, and put its rows over the user's price file, whole or not at all.

    Rows that it does not have stay. A row without a day is a stated price, which has no age.

    Args:
        now: the instant (UTC seconds), for the history.
        origin: an http(s) address or a file that ends in .csv.
        target: the price file; by default the one in `thriftune_home()`.

    Raises:
        BadInput: it cannot be read, or a row of it is no price or is dated after today; nothing is written then.
    """
    path = thriftune_home() / CATALOGUE_FILE if target is None else target
    text = _file_text(origin)
    fresh = parse_prices(text, origin)
    if not fresh:
        raise BadInput("the price file holds no prices", origin, "a header alone", "a row a price", "name another file")
    today = utc(now).date()
    for line, price in enumerate(fresh, start=2):
        if price.as_of is not None and price.as_of > today:
            raise BadInput(
                "a price is dated after today",
                where=f"{origin}, row {line}",
                found=str(price.as_of),
                expected=f"{today} or earlier",
                way_out="mend the row; the prices that are there stay",
            )
    rows: dict[str, int] = {}
    for price in fresh:
        rows[price.provider or "stated"] = rows.get(price.provider or "stated", 0) + 1
    replaced = renew(path, now, lambda kept: [*kept, *fresh])
    return Updated(path, rows, (), replaced)


def is_table(origin: str) -> bool:
    """Whether an origin names one price file rather than a catalogue of many."""
    return origin.partition("?")[0].lower().endswith(".csv")


def _file_text(origin: str) -> str:
    if not _is_address(origin):
        try:
            return _decoded(Path(origin).read_bytes(), origin)
        except OSError as error:
            raise _unreachable(origin, error.strerror or type(error).__name__) from error
    import httpx

    with httpx.Client(timeout=TIMEOUT_SECONDS, follow_redirects=True) as client:
        response = _answer(client, origin)
    if response.status_code != httpx.codes.OK:
        raise _unreachable(origin, f"HTTP status {response.status_code}")
    return _decoded(response.content, origin)


def _is_address(origin: str | Path) -> bool:
    return isinstance(origin, str) and origin.startswith(("http://", "https://"))


def _from_folder(folder: Path, providers: Iterable[str]) -> Iterator[tuple[str, tuple[str, str]]]:
    if not folder.is_dir():
        raise BadInput(
            "there is no such folder",
            where=str(folder),
            found="a file" if folder.exists() else "nothing",
            expected="a folder of <provider>/vms.csv, or an address that begins with https://",
            way_out="name a folder that holds a catalogue",
        )
    for provider in providers:
        file = folder / provider / "vms.csv"
        if file.is_file():
            yield provider, (str(file), _decoded(file.read_bytes(), str(file)))


def _from_network(base: str | Path, providers: Iterable[str]) -> Iterator[tuple[str, tuple[str, str]]]:
    import httpx

    with httpx.Client(timeout=TIMEOUT_SECONDS, follow_redirects=True) as client:
        for provider in providers:
            address = f"{str(base).rstrip('/')}/{provider}/vms.csv"
            response = _answer(client, address)
            if response.status_code == httpx.codes.NOT_FOUND:
                continue
            if response.status_code != httpx.codes.OK:
                raise _unreachable(address, f"HTTP status {response.status_code}")
            yield provider, (address, _decoded(response.content, address))


def _answer(client: httpx.Client, address: str) -> httpx.Response:
    import httpx

    try:
        return client.get(address)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise _unreachable(address, f"{type(error).__name__}: {error}") from error


def _unreachable(address: str, found: str) -> BadInput:
    return BadInput(
        "the price catalogue cannot be read",
        where=address,
        found=found,
        expected="the catalogue's CSV file",
        way_out="try again later, or read a local copy with `thriftune prices update --from FOLDER`;"
        " the prices that are there stay",
    )


def _decoded(content: bytes, where: str) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise BadInput(
            "the catalogue's file is no text",
            where=where,
            found=f"byte {error.start} is not UTF-8",
            expected="a UTF-8 CSV file",
            way_out="take the catalogue's file as it is",
        ) from error


def read_catalogue(text: str, provider: str, where: str, as_of: date, source: str = "") -> list[Price]:
    """The prices in one provider's `vms.csv`, one for each machine, region and market.

    Args:
        text: the file.
        provider: whose it is.
        where: where it was read, for messages and as the rows' source.
        as_of: the day that the prices are of.
        source: what to keep as the rows' source instead.

    Raises:
        BadInput: a column is missing or a number is none; the message names the line.
    """
    reader = csv.DictReader(io.StringIO(text, newline=""))
    highest: dict[tuple[str, str, str], Price] = {}
    try:
        header = reader.fieldnames or []
        absent = [name for name in NEEDED if name not in header]
        if absent:
            raise _bad_row(where, 1, f"the columns {', '.join(header) or 'none'}", f"also {', '.join(absent)}")
        for row in reader:
            for price in _prices_of(row, provider, where, reader.line_num, as_of, source or where):
                key = price.machine, price.region, price.market
                if key not in highest or price.per_hour > highest[key].per_hour:
                    highest[key] = price
    except csv.Error as error:
        raise _bad_row(where, reader.line_num, str(error), "comma-separated values") from error
    return [highest[key] for key in sorted(highest)]


def _prices_of(
    row: Mapping[str, Any], provider: str, where: str, line: int, as_of: date, source: str
) -> Iterator[Price]:
    accelerator = (row["AcceleratorName"] or "").strip()
    machine = (row["InstanceType"] or "").strip() or (accelerator if accelerator.startswith("tpu-") else "")
    count = _number(row["AcceleratorCount"], "AcceleratorCount", where, line)
    if not accelerator or not machine or not count:
        return
    on_demand = _known(_number(row["Price"], "Price", where, line), provider)
    spot = _known(_number(row["SpotPrice"], "SpotPrice", where, line), provider)
    if spot is not None and on_demand is not None and spot >= on_demand:
        spot = None
    for market, per_hour in (("on-demand", on_demand), ("spot", spot)):
        if per_hour is not None:
            yield Price(
                machine=machine,
                per_hour=per_hour,
                provider=provider,
                accelerator=accelerator,
                accelerator_count=count,
                region=(row["Region"] or "").strip(),
                market=market,
                source=source,
                as_of=as_of,
            )


def _known(price: Decimal | None, provider: str) -> Decimal | None:
    return None if not price or price == NOT_KNOWN.get(provider) else price


def _number(text: str | None, column: str, where: str, line: int) -> Decimal | None:
    if text is None or not text.strip():
        return None
    try:
        number = Decimal(text.strip())
    except InvalidOperation:
        raise _bad_row(where, line, f"{column} {text!r}", "a number, or nothing") from None
    if not number.is_finite() or not 0 <= number < 10**9:
        raise _bad_row(where, line, f"{column} {text!r}", "a number from 0 to a billion")
    plain = number.normalize()
    return plain.quantize(Decimal(1)) if plain == plain.to_integral_value() else plain


def _bad_row(where: str, line: int, found: str, expected: str) -> BadInput:
    return BadInput(
        "the catalogue's file cannot be read",
        where=f"{where}, line {line}",
        found=found,
        expected=expected,
        way_out="take the catalogue's file as it is; the prices that are there stay",
    )
