"""Working time: hours of some days in a time zone, without holidays, through changes of summer time.

Instants are UTC seconds since the epoch. A span of working hours is a stretch between two instants, so that on the day
on which the clock is put forward a night shift is an hour shorter, and nothing lies where no time is.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import date, datetime, time, timedelta
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

from thriftune.clock import utc
from thriftune.errors import BadInput
from thriftune.timeline.options import DAYS, MIDNIGHT, WorkingHours
from thriftune.timeline.public_holidays import public_holidays

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Instants = NDArray[np.float64]

DAY_SECONDS = 86_400.0
FIRST_DAYS = 60  # of working hours that are laid out at first, to each side
MOST_DAYS = 366 * 40


@dataclass
class WorkingTime:
    """Working hours, laid out as far as they are asked for.

    Args:
        hours: when people work.
    """

    hours: WorkingHours
    _origin: date | None = field(default=None, repr=False)
    _back: int = field(default=FIRST_DAYS, repr=False)
    _ahead: int = field(default=FIRST_DAYS, repr=False)
    _spans: tuple[Instants, Instants, Instants] | None = field(default=None, repr=False)

    def spans_of(self, day: date) -> list[tuple[float, float]]:
        """The working hours of a day as pairs of instants; none on a holiday."""
        hours = self.hours
        if DAYS[day.weekday()] not in hours.days or day in hours.holidays:
            return []
        if hours.country and day in public_holidays(hours.country, day.year):
            return []
        found = [(self._instant(day, span.start), self._instant(day, span.end)) for span in hours.hours]
        return [(start, end) for start, end in found if start < end]

    def is_working(self, instant: float) -> bool:
        """Whether an instant lies in working hours, their first and last moment included."""
        day = utc(instant).astimezone(ZoneInfo(self.hours.time_zone)).date()
        days = (day - timedelta(days=1), day)
        return any(start <= instant <= end for each in days for start, end in self.spans_of(each))

    def after(self, starts: Instants, seconds: Instants) -> Instants:
        """The instants at which so many seconds of working time have passed; the next working instant for none.

        Raises:
            BadInput: there is not so much working time in `MOST_DAYS` days.
        """
        import numpy as np

        self._reach(float(np.min(starts)), float(np.max(starts)))
        while True:
            begins, ends, worked = self._laid_out()
            wanted = self._worked(starts) + np.maximum(seconds, 0.0)
            if float(np.max(wanted)) < worked[-1]:
                break
            self._extend(ahead=True)
        place = np.searchsorted(worked, wanted, side="left")
        # At a boundary, where one span has ended and the next not begun: some work ends here, none begins there.
        place = np.where((seconds <= 0) & (wanted >= worked[place]), place + 1, place)
        before = worked[place - 1]
        found = begins[place - 1] + (wanted - before)
        inside = np.where(seconds <= 0, np.maximum(found, starts), found)
        return np.minimum(inside, ends[place - 1])

    def before(self, ends_at: Instants, seconds: Instants) -> Instants:
        """The latest instants from which so many seconds of working time pass until `ends_at`.

        Raises:
            BadInput: there is not so much working time in `MOST_DAYS` days.
        """
        import numpy as np

        self._reach(float(np.min(ends_at)), float(np.max(ends_at)))
        while True:
            begins, ends, worked = self._laid_out()
            wanted = self._worked(ends_at) - np.maximum(seconds, 0.0)
            if float(np.min(wanted)) > 0:
                break
            self._extend(ahead=False)
        place = np.searchsorted(worked, wanted, side="right") - 1
        place = np.where((seconds <= 0) & (wanted <= worked[place]), place - 1, place)
        found = begins[place] + (wanted - worked[place])
        inside = np.where(seconds <= 0, np.minimum(found, ends_at), found)
        return np.minimum(np.maximum(inside, begins[place]), ends[place])

    def between(self, start: float, end: float) -> float:
        """Seconds of working time from one instant to a later one."""
        import numpy as np

        self._reach(start, end)
        worked = self._worked(np.asarray([start, end]))
        return float(worked[1] - worked[0])

    def _worked(self, instants: Instants) -> Instants:
        """Seconds of working time since the first span that is laid out."""
        import numpy as np

        begins, ends, worked = self._laid_out()
        place = np.clip(np.searchsorted(begins, instants, side="right") - 1, 0, len(begins) - 1)
        return worked[place] + np.clip(instants - begins[place], 0.0, ends[place] - begins[place])

    def _instant(self, day: date, minute: int) -> float:
        at = datetime.combine(day, time(minute // 60, minute % 60)) if minute < MIDNIGHT else None
        at = at or datetime.combine(day + timedelta(days=1), time())
        return instant_of(at, ZoneInfo(self.hours.time_zone))

    def _reach(self, first: float, last: float) -> None:
        """Lay out working hours well around two instants."""
        if self._origin is None:
            self._origin = utc(first).date()
        back = (self._origin - utc(first).date()).days + 14
        ahead = (utc(last).date() - self._origin).days + 14
        if back > self._back or ahead > self._ahead:
            self._back, self._ahead = max(self._back, back), max(self._ahead, ahead)
            self._spans = None

    def _extend(self, ahead: bool) -> None:
        if ahead:
            self._ahead = _further(self._ahead)
        else:
            self._back = _further(self._back)
        self._spans = None

    def _laid_out(self) -> tuple[Instants, Instants, Instants]:
        """Begins and ends of all spans, in order, and the working time before each, with one more at the end."""
        import numpy as np

        if self._spans is not None:
            return self._spans
        if self._origin is None or max(self._back, self._ahead) > MOST_DAYS:
            raise BadInput(
                "there is too little working time",
                where="timeline.people",
                found="not enough hours in 40 years",
                expected="days and hours in which people work",
                way_out="fewer holidays, or more days or hours",
            )
        days = (self._origin + timedelta(days=number) for number in range(-self._back, self._ahead))
        spans = sorted(span for day in days for span in self.spans_of(day))
        if not spans:
            self._extend(ahead=True)
            self._extend(ahead=False)
            return self._laid_out()
        begins, ends = np.asarray([s for s, _ in spans]), np.asarray([e for _, e in spans])
        begins = np.maximum(begins, np.concatenate([[-np.inf], np.maximum.accumulate(ends)[:-1]]))
        lengths = np.maximum(ends - begins, 0.0)
        self._spans = begins, ends, np.concatenate([[0.0], np.cumsum(lengths)])
        return self._spans


def instant_of(wall: datetime, zone: ZoneInfo) -> float:
    """The instant at which a clock on the wall shows a time: the first one, or where it skips that time, the skip."""
    first, second = (wall.replace(tzinfo=zone, fold=fold).timestamp() for fold in (0, 1))
    if second >= first:
        return first
    low, high = second, first  # in a gap the two offsets cross: between them lies the change
    before = utc(low).astimezone(zone).utcoffset()
    while high - low > 0.5:
        middle = (low + high) / 2
        low, high = (middle, high) if utc(middle).astimezone(zone).utcoffset() == before else (low, middle)
    return float(round(high))


def _further(days: int) -> int:
    """Twice as many, but `MOST_DAYS` before what is beyond them."""
    return 2 * days if days >= MOST_DAYS else min(2 * days, MOST_DAYS)
