"""The price table: what ships, what a user states, what the catalogue gives, and what cannot be read."""

import csv
import threading
from datetime import UTC, date, datetime
from decimal import Decimal
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from thriftune.errors import BadInput
from thriftune.money import catalogue, prices
from thriftune.money.history import set_price
from thriftune.money.prices import LocalMachine, Price, PriceTable, local_price

NOW = datetime(2026, 11, 24, tzinfo=UTC).timestamp()
HEADER = "InstanceType,vCPUs,AcceleratorName,AcceleratorCount,GpuInfo,Region,AvailabilityZone,Price,SpotPrice\n"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("THRIFTUNE_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def row(machine: str = "m", per_hour: str = "2", **known: object) -> Price:
    return Price(machine, Decimal(per_hour), **{"provider": "p", "as_of": date(2026, 11, 1), **known})  # type: ignore[arg-type]


def write_catalogue(folder: Path, **files: str) -> Path:
    for provider, text in files.items():
        (folder / provider).mkdir(parents=True)
        (folder / provider / "vms.csv").write_text(text)
    return folder


# What ships


def test_the_snapshot_holds_gpus_and_tpus_of_five_providers_or_more_each_with_source_and_date() -> None:
    table = PriceTable.load()
    assert len({price.provider for price in table.rows}) >= 5
    accelerators = {price.accelerator for price in table.rows}
    assert {"A10", "A100", "H100", "H200", "L4", "L40S", "V100", "MI300X", "tpu-v6e-8"} <= accelerators
    assert {price.market for price in table.rows} == {"on-demand", "spot"}
    for price in table.rows:
        assert price.per_hour > 0
        assert price.as_of is not None
        assert price.source.startswith("skypilot-org/skypilot-catalog catalogs/v8/")


def test_a_spot_price_in_the_snapshot_is_below_the_on_demand_price_of_the_same_machine() -> None:
    table = PriceTable.load()
    on_demand = {(p.provider, p.machine, p.region): p.per_hour for p in table.rows if p.market == "on-demand"}
    for price in table.rows:
        if price.market == "spot":
            assert price.per_hour < on_demand[price.provider, price.machine, price.region]


# Finding a price


def test_the_cheapest_region_is_taken_unless_one_is_named() -> None:
    table = PriceTable((row(region="north", per_hour="3"), row(region="south", per_hour="2")))
    assert table.find("m").region == "south"
    assert table.find("M", region="north").per_hour == 3


def test_prices_of_several_machines_are_exact() -> None:
    assert row(per_hour="0.1").times(3) == Decimal("0.3")


def test_a_missing_price_names_the_nearest_rows() -> None:
    with pytest.raises(BadInput) as caught:
        PriceTable.load().find("p5.48xlrge")
    assert "p5.48xlrge" in caught.value.found
    assert "p5.48xlarge" in caught.value.expected


def test_a_missing_region_names_the_regions_that_there_are() -> None:
    with pytest.raises(BadInput, match="nowhere") as caught:
        PriceTable((row(region="north"),)).find("m", region="nowhere")
    assert "north" in caught.value.expected


def test_a_name_that_two_providers_use_needs_the_provider() -> None:
    table = PriceTable((row(), row(provider="q", per_hour="1")))
    with pytest.raises(BadInput, match="p:m or q:m"):
        table.find("m")
    assert table.find("q:m").per_hour == 1


def test_an_old_price_warns_with_its_age_and_a_fresh_one_does_not() -> None:
    assert row(as_of=date(2026, 8, 26)).warning(NOW) is None
    warning = row(as_of=date(2026, 8, 25)).warning(NOW)
    assert warning is not None
    assert "91 days" in warning


# The local machine


def test_the_local_machine_costs_energy_and_amortisation() -> None:
    machine = LocalMachine(power_watts="200", electricity_per_kwh="0.25", purchase_price="900", lifetime_hours="9000")
    price = local_price(machine)
    assert price.per_hour == Decimal("0.15")
    assert price.warning(NOW) is None


def test_every_part_of_the_local_price_states_where_it_comes_from() -> None:
    assert all(field.description for field in LocalMachine.model_fields.values())
    assert "kWh" in local_price().source


# A price of one's own


def test_a_stated_price_stands_above_the_catalogue_in_every_region(home: Path) -> None:
    table = PriceTable.load()
    own = table.own_price("p5.48xlarge", Decimal("12.5"), "", "", "on-demand", "USD")
    assert own.accelerator == "H100"
    set_price(own, NOW)
    for region in (None, "us-east-1", "somewhere-else"):
        assert PriceTable.load().find("p5.48xlarge", region).per_hour == Decimal("12.5")
    assert (home / "my-prices.csv").exists()
    assert PriceTable.load().find("p5.48xlarge", market="spot").per_hour < 20


def test_a_machine_that_the_table_lacks_can_be_given_a_price() -> None:
    set_price(PriceTable.load().own_price("cellar", Decimal("0.07"), "us", "", "on-demand", "EUR"), NOW)
    found = PriceTable.load().find("cellar")
    assert (found.per_hour, found.currency, found.warning(NOW)) == (Decimal("0.07"), "EUR", None)


amounts = st.decimals(min_value=0, max_value=10**6, places=9)
words = st.text(st.characters(exclude_categories=["C"]), max_size=12).map(str.strip)


@given(
    st.lists(
        st.builds(
            Price,
            machine=words.filter(bool),
            per_hour=amounts,
            provider=words,
            accelerator=words,
            accelerator_count=st.decimals(0, 64, places=2),
            region=words,
            market=st.sampled_from(prices.MARKETS),
            source=words,
            as_of=st.none() | st.dates(date(2000, 1, 1), date(2100, 1, 1)),
        ),
        max_size=5,
    )
)
def test_what_is_written_is_read_back(tmp_path_factory: pytest.TempPathFactory, rows: list[Price]) -> None:
    path = tmp_path_factory.mktemp("prices") / "prices.csv"
    path.write_text(prices.format_prices(rows), newline="")
    assert prices.read_prices(path) == rows


@given(st.text())
def test_no_text_gives_anything_but_prices_or_a_message(text: str) -> None:
    for content in (text, ",".join(prices.COLUMNS) + "\n" + text):
        try:
            prices.parse_prices(content, "prices.csv")
        except BadInput as error:
            assert "prices.csv, line" in str(error)


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("p,m,H100,1,r,on-demand,abc,USD,s,2026-01-01", "abc"),
        ("p,m,H100,1,r,on-demand,-1,USD,s,2026-01-01", "-1"),
        ("p,m,H100,1,r,sometimes,1,USD,s,2026-01-01", "sometimes"),
        ("p,m,H100,1,r,spot,1,USD,s,yesterday", "yesterday"),
        ("p,m,H100", "another number of fields"),
        ("p,,H100,1,r,spot,1,USD,s,2026-01-01", "no machine"),
    ],
)
def test_a_row_that_is_no_price_is_named_by_its_line(line: str, found: str) -> None:
    with pytest.raises(BadInput) as caught:
        prices.parse_prices(",".join(prices.COLUMNS) + "\n" + line + "\n", "prices.csv")
    assert caught.value.where == "prices.csv, line 2"
    assert found in caught.value.found


# The catalogue


def test_a_region_costs_what_its_dearest_zone_costs_and_unknown_prices_are_left_out(tmp_path: Path) -> None:
    text = (
        HEADER
        + "big,8,H100,8.0,info,east,east-a,55.04,55.04\n"  # spot at the on-demand price: nothing is on offer
        + "big,8,H100,8.0,info,east,east-b,55.04,14.58\n"
        + "big,8,H100,8.0,info,east,east-c,55.04,14.24\n"
        + "big,8,H100,8.0,info,west,west-a,,\n"
        + "free,8,H100,1,info,east,east-a,0.0,\n"
        + "plain,8,,,,east,east-a,0.5,0.1\n"
        + "part,8,L4,0.25,info,east,east-a,0.475,\n"
    )
    done = catalogue.update(NOW, write_catalogue(tmp_path / "v8", aws=text))
    assert done.rows == {"aws": 3}
    found = {(p.machine, p.region, p.market): p for p in prices.read_prices(done.path)}
    assert found["big", "east", "on-demand"].per_hour == Decimal("55.04")
    assert found["big", "east", "spot"].per_hour == Decimal("14.58")
    assert found["part", "east", "on-demand"].accelerator_count == Decimal("0.25")
    assert all(price.as_of == date(2026, 11, 24) for price in found.values())


def test_gcp_gives_tpus_by_name_and_neither_hostless_gpus_nor_placeholders(tmp_path: Path) -> None:
    text = (
        HEADER
        + ",,tpu-v6e-8,1,tpu-v6e-8,us-central1,us-central1-a,21.6,4.5828\n"
        + ",,tpu-v6e-8,1,tpu-v6e-8,asia-east1,asia-east1-c,700.0,700.0\n"
        + ",,V100,1,info,us-central1,us-central1-a,2.48,1.1458\n"
    )
    done = catalogue.update(NOW, write_catalogue(tmp_path / "v8", gcp=text))
    assert {(p.machine, p.region) for p in prices.read_prices(done.path)} == {("tpu-v6e-8", "us-central1")}


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@pytest.fixture
def served(tmp_path: Path) -> object:
    """A folder, and the address that it is served at."""
    folder = tmp_path / "served"
    folder.mkdir()
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield folder, f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_the_catalogue_is_read_over_http_and_absent_providers_are_named(served: tuple[Path, str]) -> None:
    folder, address = served
    write_catalogue(folder, oci=HEADER + "vm,1,A10,1,info,home,ad-1,2,\n")
    done = catalogue.update(NOW, address)
    assert done.rows == {"oci": 1}
    assert "aws" in done.absent
    assert PriceTable.load().find("vm").source == f"{address}/oci/vms.csv"


def test_an_unreachable_catalogue_changes_nothing(served: tuple[Path, str], home: Path) -> None:
    folder, address = served
    write_catalogue(folder, oci=HEADER + "vm,1,A10,1,info,home,ad-1,2,\n")
    catalogue.update(NOW, address)
    before = (home / "prices.csv").read_bytes()
    with pytest.raises(BadInput, match="cannot be read"):
        catalogue.update(NOW, "http://127.0.0.1:9")
    with pytest.raises(BadInput, match="cannot be read"):
        catalogue.update(NOW, "http://[")
    assert (home / "prices.csv").read_bytes() == before


@pytest.mark.parametrize(
    ("text", "line", "found"),
    [
        ("a,b,c\n1,2,3\n", 1, "a, b, c"),
        ("", 1, "none"),
        (HEADER + "m,1,A10,1,info,home,ad-1,cheap,\n", 2, "cheap"),
        (HEADER + "m,1,A10,1,info,home,ad-1,nan,\n", 2, "nan"),
        (HEADER + "m,1,A10,1,info,home,ad-1,-2,\n", 2, "-2"),
    ],
)
def test_a_file_that_is_no_catalogue_is_refused_and_nothing_is_written(
    tmp_path: Path, home: Path, text: str, line: int, found: str
) -> None:
    folder = write_catalogue(tmp_path / "v8", aws=text)
    with pytest.raises(BadInput) as caught:
        catalogue.update(NOW, folder)
    assert caught.value.where == f"{folder / 'aws' / 'vms.csv'}, line {line}"
    assert found in caught.value.found
    assert not home.exists()


def test_a_folder_without_a_catalogue_or_no_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no prices"):
        catalogue.update(NOW, tmp_path)
    with pytest.raises(BadInput, match="no such folder"):
        catalogue.update(NOW, tmp_path / "nowhere")
    write_catalogue(tmp_path / "v8", aws="\xff")
    (tmp_path / "v8" / "aws" / "vms.csv").write_bytes(b"\xff\xfe")
    with pytest.raises(BadInput, match="UTF-8"):
        catalogue.update(NOW, tmp_path / "v8")


@given(st.text(), st.lists(st.lists(st.text(max_size=6), min_size=9, max_size=9), max_size=3))
def test_no_catalogue_file_gives_anything_but_prices_or_a_message(text: str, cells: list[list[str]]) -> None:
    import io

    buffer = io.StringIO()
    csv.writer(buffer).writerows(cells)
    for content in (text, HEADER + text, HEADER + buffer.getvalue()):
        try:
            catalogue.read_catalogue(content, "gcp", "vms.csv", date(2026, 1, 1))
        except BadInput as error:
            assert "vms.csv, line" in str(error)
