"""The key of the voice, and what it speaks."""

from collections.abc import Callable
from dataclasses import replace

from streaming_vlm_mlx.errors import SvmError
from streaming_vlm_mlx.stream.events import GenerationResult
from tui.player.controller import PlayerEvent, Seeked
from tui.player.phrases import PhraseReader
from tui.player.screens.sounding import SHOWN, Sounding
from tui.player.sound import PlayerSound, SoundSpec
from tui.player.spec import PlayerSpec
from tui.player.voice import PlayerVoice


class Speaking(Sounding):
    """Plays the clip's sound, and speaks the commentary.

    Attributes:
        voice: speaks; None while it is off.
    """

    voice: PlayerVoice | None = None
    _has_paused = False

    def prepare_voice(self, clock: Callable[[], float], tell: Callable[[str], None]) -> None:
        """Get ready to speak; `clock` returns seconds, and `tell` tells the viewer something from a thread."""
        self._voice_clock, self._tell_of_voice = clock, tell
        self._phrases = PhraseReader()

    def start_sound(self) -> None:
        """Start the sound, and the voice if it is wanted from the start."""
        super().start_sound()
        if self.spec.voice.on:
            self._start_voice()

    def follow_playhead(self) -> None:
        """Let sound and voice go where the playhead goes; a pause silences the voice."""
        super().follow_playhead()
        if self.voice:
            self.voice.follow(self.controller.playhead.motion)
            has_paused = self.controller.playhead.state == "paused"
            if has_paused and not self._has_paused:
                self.voice.silence()
            self._has_paused = has_paused

    def close_sound(self) -> None:
        """End sound and voice."""
        self._stop_voice()
        super().close_sound()

    def heard_alike(self, spec: PlayerSpec) -> PlayerSpec:
        """Return `spec`, of another clip, with the volume and the voice of this one, and what was told of its sound."""
        sound = spec.sound
        if sound and self.sound:
            sound = replace(sound, volume=self.sound.volume, muted=self.sound.muted, told=self.sound.problem)
        return replace(spec, sound=sound, voice=replace(spec.voice, on=self.voice is not None))

    def hear(self, event: PlayerEvent) -> None:
        """Speak what is whole with `event`."""
        phrases = self._phrases.read(event)
        if self.voice is None or self.sound is None or self.sound.problem:
            return
        if isinstance(event, Seeked):
            self.voice.silence()
        elif isinstance(event, GenerationResult) and event.query:
            self.voice.answered(event.index)
        if not self._has_paused:
            for phrase in phrases:
                self.voice.say(phrase)

    def action_voice(self) -> None:
        """Speak the commentary, or stop that."""
        if self.voice:
            self._stop_voice()
            self.presenter.note("voice off", SHOWN, topic="voice")
        elif self._start_voice():
            assert self.sound
            # A device that is missing was told of when it was looked for.
            text = f"no voice: {self.sound.problem}" if self.sound.problem else "voice on"
            self.presenter.note(text, SHOWN, topic="voice")

    def _start_voice(self) -> bool:
        """Start the voice, and return whether its program is there; tell the viewer if it is not."""
        try:
            speaker = self.spec.voice.open_speaker(self.spec.voice.command)
        except SvmError as error:
            self.presenter.note(f"no voice: {error}", topic="voice")
            return False
        if self.sound is None:
            # Sound is not wanted.
            self.sound = PlayerSound(SoundSpec(lambda *_: None), self._voice_clock, self._tell_of_voice)
            self.sound.start()
        self.sound.open_for_speech()
        self.voice = PlayerVoice(speaker, self.sound.mixer, self._voice_clock, self._tell_of_voice)
        self.follow_playhead()
        return True

    def _stop_voice(self) -> None:
        voice, self.voice = self.voice, None
        if voice:
            voice.close()
