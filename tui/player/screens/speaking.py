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
        voice_problem: why it could not be turned on the last time; empty if it could.
    """

    voice: PlayerVoice | None = None
    voice_problem = ""
    # Whether the viewer wants to know when it is on.
    _is_announced = False
    _has_paused = False

    def prepare_voice(self, clock: Callable[[], float], tell: Callable[[str], None]) -> None:
        """Get ready to speak; `clock` returns seconds, and `tell` tells the viewer something from a thread."""
        self._voice_clock, self._tell_of_voice = clock, tell
        self._phrases = PhraseReader()

    def start_sound(self) -> None:
        """Start the sound, and the voice if it is wanted from the start."""
        if self.spec.voice.on and self.sound:
            # A device that is missing is told of once.
            self.sound.open_for_speech()
        super().start_sound()
        if self.spec.voice.on:
            self._start_voice()

    def follow_playhead(self) -> None:
        """Let sound and voice go where the playhead goes; a pause silences the voice."""
        super().follow_playhead()
        if self.voice and self.sound and self.sound.no_device:
            self._stop_voice()
            self._refuse_voice(self.sound.no_device)
        if self.voice:
            if self._is_announced and self.sound and self.sound.is_open:
                self._is_announced = False
                self.presenter.note("voice on", SHOWN, topic="voice")
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
        else:
            self._is_announced = True
            self._start_voice()

    def _start_voice(self) -> None:
        """Start the voice where there is a program and, as far as is known, a device; else tell the viewer."""
        try:
            speaker = self.spec.voice.open_speaker(self.spec.voice.command)
        except SvmError as error:
            self._refuse_voice(str(error))
            return
        if self.sound is None:
            # Sound is not wanted.
            self.sound = PlayerSound(SoundSpec(lambda *_: None), self._voice_clock, self._tell_of_voice)
            self.sound.start()
        self.sound.open_for_speech()
        if self.sound.problem:
            speaker.close()
            self._refuse_voice(self.sound.problem)
            return
        self.voice_problem = ""
        self.voice = PlayerVoice(speaker, self.sound.mixer, self._voice_clock, self._tell_of_voice)
        self.follow_playhead()

    def _refuse_voice(self, problem: str) -> None:
        self.voice_problem, self._is_announced = problem, False
        self.presenter.note(f"no voice: {problem}", topic="voice")

    def _stop_voice(self) -> None:
        voice, self.voice = self.voice, None
        if voice:
            voice.close()
