"""The times of a feed's sound: those of its pictures, through losses and clocks that are set anew."""

from streaming_vlm_mlx.video.feed_sound import MOST_APART, MOST_WAITING, SoundClock, SoundFormat, SoundPacket

AAC = SoundFormat("aac", 48_000, "stereo", None)


class Heard:
    """What a clock of sound hands on."""

    def __init__(self) -> None:
        self.packets = list[SoundPacket]()
        self.clock = SoundClock(self.packets.append)

    def take(self, *times: float) -> None:
        for time in times:
            self.clock.take(SoundPacket(AAC, time, b"sound"))

    @property
    def times(self) -> list[float]:
        return [packet.time for packet in self.packets]


def test_sound_has_the_times_of_the_pictures_beside_it() -> None:
    heard = Heard()
    heard.clock.show(100.0, 7.0)
    heard.take(100.0, 100.5)
    heard.clock.show(101.0, 8.0)
    heard.take(100.75, 101.5)
    assert heard.times == [7.0, 7.5, 7.75, 8.5]
    assert heard.packets[0].data == b"sound"


def test_sound_waits_for_the_first_picture_and_what_is_before_it_is_dropped() -> None:
    heard = Heard()
    heard.take(99.0, 100.0, 100.5)
    assert heard.times == []
    heard.clock.show(100.0, 0.0)
    assert heard.times == [0.0, 0.5]
    heard.clock.begin()
    heard.take(*map(float, range(MOST_WAITING + 5)))
    heard.clock.begin()
    heard.clock.show(2.0, 3.0)
    heard.take(1.5, 2.5)
    assert heard.times == [0.0, 0.5, 3.5]


def test_no_more_waits_than_is_of_use() -> None:
    heard = Heard()
    heard.take(*(number / 1000 for number in range(MOST_WAITING + 5)))
    heard.clock.show(0.0, 0.0)
    assert heard.times[0] == 0.005
    assert len(heard.times) == MOST_WAITING


def test_where_the_clock_is_set_anew_sound_of_the_other_clock_is_dropped() -> None:
    heard = Heard()
    heard.clock.show(100.0, 7.0)
    heard.take(100.5, 3.0, 100.0 + MOST_APART + 1.0)
    heard.clock.show(3.5, 7.5)
    heard.take(100.6, 4.0)
    assert heard.times == [7.5, 8.0]


def test_where_nobody_hears_it_nothing_is_kept() -> None:
    clock = SoundClock(None)
    clock.take(SoundPacket(AAC, 1.0, b"sound"))
    clock.show(0.0, 0.0)
