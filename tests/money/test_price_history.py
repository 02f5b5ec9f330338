"""Replacing prices: whole or not at all, from the catalogue, from a file or an address; the old ones are kept."""

import threading
from collections.abc import Iterator
from datetime import UTC, date, datetime
from decimal import Decimal
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from thriftune.errors import BadInput
from thriftune.money.catalogue import is_table, update_table
from thriftune.money.history import forget_price, history, renew, set_price
from thriftune.money.prices import CATALOGUE_FILE, COLUMNS, Price, PriceTable, format_prices, read_prices

NOW = datetime(2026, 11, 25, tzinfo=UTC).timestamp()


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("THRIFTUNE_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def row(machine: str = "m", per_hour: str = "2", as_of: date | None = date(2026, 11, 1)) -> Price:
    return Price(machine, Decimal(per_hour), provider="p", as_of=as_of, source="list")


def written(path: Path, *prices: Price) -> str:
    path.write_text(format_prices(prices))
    return str(path)


def test_a_file_in_the_tables_own_form_goes_over_the_catalogue_and_the_old_prices_are_kept(
    tmp_path: Path, home: Path
) -> None:
    first = update_table(NOW, written(tmp_path / "a.csv", row("m", "2"), row("n", "3")))
    assert (first.rows, first.replaced) == ({"p": 2}, 0)
    second = update_table(NOW + 60, written(tmp_path / "b.csv", row("m", "2.5", date(2026, 11, 20))))
    assert second.replaced == 1
    assert PriceTable.load().find("m").per_hour == Decimal("2.5")
    assert PriceTable.load().find("n").per_hour == 3
    assert [(one.price.machine, one.price.per_hour, one.at.timestamp()) for one in history()] == [
        ("m", Decimal(2), NOW + 60)
    ]
    assert update_table(NOW + 90, str(tmp_path / "b.csv")).replaced == 0  # the same again changes nothing
    assert len(history()) == 1


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", "nothing"),
        (",".join(COLUMNS) + "\n", "a header alone"),
        ("provider,machine\np,m\n", "provider, machine"),
        (format_prices([row("m", "2", date(2027, 1, 1))]), "2027-01-01"),
        (format_prices([row()]).replace(",2,", ",-2,"), "-2"),
        (format_prices([row()]).replace("on-demand", "monthly"), "monthly"),
    ],
)
def test_a_file_that_is_no_price_file_changes_nothing(tmp_path: Path, home: Path, text: str, found: str) -> None:
    update_table(NOW, written(tmp_path / "good.csv", row()))
    before = (home / CATALOGUE_FILE).read_bytes()
    (tmp_path / "bad.csv").write_text(text)
    with pytest.raises(BadInput) as caught:
        update_table(NOW, str(tmp_path / "bad.csv"))
    assert found in caught.value.found
    assert (home / CATALOGUE_FILE).read_bytes() == before
    assert history() == []


def test_a_users_price_can_be_changed_and_taken_back_and_what_it_was_stays_known() -> None:
    table_price = PriceTable.load().find("g6.xlarge").per_hour
    for number, per_hour in enumerate(("0.5", "0.6")):
        own = PriceTable.load().own_price("g6.xlarge", Decimal(per_hour), "aws", "", "on-demand", "USD")
        set_price(own, NOW + number)
    assert PriceTable.load().find("g6.xlarge").per_hour == Decimal("0.6")
    assert forget_price("G6.xlarge", "", NOW + 2) == 1
    assert PriceTable.load().find("g6.xlarge").per_hour == table_price
    assert [one.price.per_hour for one in history()] == [Decimal("0.5"), Decimal("0.6")]
    assert forget_price("g6.xlarge", "", NOW + 3) == 0


@given(st.lists(st.dictionaries(st.sampled_from("abcde"), st.integers(1, 5), max_size=5), max_size=6))
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_file_and_the_history_hold_every_price_that_ever_was(
    tmp_path_factory: pytest.TempPathFactory, versions: list[dict[str, int]]
) -> None:
    folder = tmp_path_factory.mktemp("prices")
    ever = set()
    for number, version in enumerate(versions):
        fresh = [row(machine, str(per_hour)) for machine, per_hour in version.items()]
        renew(folder / "p.csv", NOW + number, lambda _, fresh=fresh: fresh)  # type: ignore[misc]
        ever |= {(price.machine, price.per_hour) for price in fresh}
        assert {price.key for price in read_prices(folder / "p.csv")} == {price.key for price in fresh}
    there = read_prices(folder / "p.csv") if versions else []
    known = [*there, *(one.price for one in history(folder))]
    assert {(price.machine, price.per_hour) for price in known} == ever


def test_two_who_set_prices_at_once_lose_none() -> None:
    threads = [threading.Thread(target=set_price, args=(row(f"m{n}", "1", None), NOW)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {f"m{n}" for n in range(8)} <= {price.machine for price in PriceTable.load().rows}


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    folder = tmp_path / "served"
    folder.mkdir()
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield folder, f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


def test_a_price_file_is_read_over_http_and_one_that_is_not_there_is_told(served: tuple[Path, str]) -> None:
    folder, address = served
    written(folder / "prices.csv", row("far", "7"))
    assert update_table(NOW, f"{address}/prices.csv").rows == {"p": 1}
    assert PriceTable.load().find("far").per_hour == 7
    with pytest.raises(BadInput, match="HTTP status 404"):
        update_table(NOW, f"{address}/other.csv")


def test_a_csv_file_is_a_table_and_anything_else_a_catalogue() -> None:
    assert is_table("https://example.org/my-prices.csv?raw=1")
    assert is_table("folder/PRICES.CSV")
    assert not is_table("https://example.org/catalogs/v8")
