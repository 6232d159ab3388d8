"""The OCR engine with its real server: one process that several engines share, pictures drawn here."""

import contextlib
import io
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from pipeline.engines.ocr.engine import OcrEngine
from pipeline.engines.ocr.wire import OcrReply, OcrRequest, receive, send
from pipeline.ports import ModelFault, ModelUnavailable
from pipeline.types import Call, Finish, Form, ItemCode, Picture

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("ocr")]


@pytest.fixture(scope="module")
def engine(tmp_path_factory):
    engine = OcrEngine(tmp_path_factory.mktemp("ocr"), grace=1.0)
    yield engine
    engine.close()


def drawn(*lines, size=(640, 300), font=28, colour="black", mode="RGB", paper="white"):
    """A picture of (x, y, text)."""
    image = Image.new(mode, size, paper)
    draw = ImageDraw.Draw(image)
    for x, y, text in lines:
        draw.text((x, y), text, colour, font=ImageFont.load_default(size=font))
    return image


def encoded(image, kind="PNG", **how):
    file = io.BytesIO()
    image.save(file, kind, **how)
    return file.getvalue()


def call(data, form=Form.TEXT, *, json_mode=False, number=1, timeout=120.0):
    pictures = (Picture(number=number, mime="image/png", data=data),)
    return Call(prompt="Read it.", form=form, json_mode=json_mode, pictures=pictures, timeout=timeout)


def text_of(engine, image, kind="PNG", **how):
    answer = engine.ask(call(encoded(image, kind, **how)))
    assert answer.finish is Finish.COMPLETE
    return answer.text


def eventually(holds, seconds=30.0):
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.02)


def alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


RECEIPT = drawn(
    (40, 30, "CORNER GROCERY"),
    (40, 90, "Whole milk"),
    (480, 90, "1.89"),
    (40, 140, "Sourdough bread"),
    (480, 140, "14.20"),
    (40, 190, "TOTAL"),
    (480, 190, "16.09"),
)
RECEIPT_TEXT = "CORNER GROCERY\nWhole milk   1.89\nSourdough bread   14.20\nTOTAL   16.09"
HELLO = drawn((40, 40, "Hello from the station"), (40, 120, "Platform 9, 17:45"))
HELLO_TEXT = "Hello from the station\nPlatform 9, 17:45"


def joined(text):
    return "\n".join(line for line in text.splitlines() if line)


# --- what it reads ---


def test_a_receipt_is_answered_with_its_rows(engine):
    answer = engine.ask(call(encoded(RECEIPT)))
    assert joined(answer.text) == RECEIPT_TEXT
    assert (answer.input_tokens, answer.output_tokens) == (0, 0)
    assert answer.model_version.startswith("rapidocr 3.")


def test_the_json_form_is_an_array_with_one_object_of_lines_and_boxes(engine):
    answer = engine.ask(call(encoded(RECEIPT), Form.JSON, number=7))
    (found,) = json.loads(answer.text)
    assert set(found) == {"image", "text", "lines", "barcodes"}
    assert found["image"] == 7
    assert joined(found["text"]) == RECEIPT_TEXT
    assert found["barcodes"] == []
    (total,) = [line for line in found["lines"] if line["text"] == "TOTAL"]
    assert total["confidence"] == round(total["confidence"], 3) >= 0.9
    (left, top), _, (right, bottom), _ = total["box"]
    assert abs(left - 40) < 12
    assert top < 205 < bottom
    assert 100 < right < 180


def test_the_record_form_has_the_pictures_number_and_its_text(engine):
    answer = engine.ask(call(encoded(HELLO), Form.RECORDS, number=12))
    assert json.loads(answer.text) == [{"index": 12, "result": HELLO_TEXT}]


def test_a_json_record_has_text_lines_and_barcodes(engine):
    answer = engine.ask(call(encoded(HELLO), Form.RECORDS, number=3, json_mode=True))
    (record,) = json.loads(answer.text)
    assert record["index"] == 3
    assert set(record["result"]) == {"text", "lines", "barcodes"}
    assert record["result"]["text"] == HELLO_TEXT


def test_a_picture_without_text_is_answered_with_empty_text(engine):
    blank = encoded(Image.new("RGB", (300, 200), "white"))
    assert engine.ask(call(blank)).text == ""
    assert json.loads(engine.ask(call(blank, Form.RECORDS)).text) == [{"index": 1, "result": ""}]
    assert json.loads(engine.ask(call(blank, Form.JSON)).text) == [{"image": 1, "text": "", "lines": [], "barcodes": []}]


@pytest.mark.parametrize("size", [(1, 1), (3, 4000), (4000, 3), (31, 31)])
def test_a_picture_of_any_shape_is_answered(engine, size):
    assert engine.ask(call(encoded(Image.new("RGB", size, "navy")))).finish is Finish.COMPLETE


def qr(text):
    import zxingcpp

    code = zxingcpp.create_barcode(text, zxingcpp.BarcodeFormat.QRCode).to_image(scale=6)
    return Image.fromarray(np.asarray(code)).convert("RGB")


def test_a_qr_code_is_read_and_its_squares_are_not_taken_for_letters(engine):
    image = HELLO.copy()
    image.paste(qr("https://shop.example/r/42"), (440, 90))
    assert text_of(engine, image) == f"{HELLO_TEXT}\n\n[QRCode] https://shop.example/r/42"
    (found,) = json.loads(engine.ask(call(encoded(image), Form.JSON)).text)
    assert found["text"] == HELLO_TEXT
    (code,) = found["barcodes"]
    assert (code["format"], code["text"]) == ("QRCode", "https://shop.example/r/42")
    assert all(440 <= x <= 640 and 90 <= y <= 290 for x, y in code["box"])


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "HEIF"])
def test_every_native_format_is_read(engine, kind):
    if kind == "HEIF":
        import pillow_heif

        pillow_heif.register_heif_opener()
    assert text_of(engine, HELLO, kind, quality=90) == HELLO_TEXT


@pytest.mark.parametrize("orientation", [3, 6, 8])
def test_exif_orientation_is_honoured_and_boxes_are_of_the_upright_picture(engine, orientation):
    as_stored = HELLO.rotate({3: 180, 6: 90, 8: 270}[orientation], expand=True)
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(as_stored, "JPEG", exif=exif, quality=92)
    (found,) = json.loads(engine.ask(call(data, Form.JSON)).text)
    assert found["text"] == HELLO_TEXT
    (left, top), _, _, _ = found["lines"][0]["box"]
    assert abs(left - 40) < 12
    assert abs(top - 45) < 15


@pytest.mark.parametrize("degrees", [90, 180, 270])
def test_a_turned_picture_without_a_tag_is_read_and_its_boxes_stay_where_the_text_stands(engine, degrees):
    image = drawn(*[(60, 40 + 50 * n, f"Line number {n} of the turned page") for n in range(8)], size=(700, 480))
    (found,) = json.loads(engine.ask(call(encoded(image.rotate(degrees, expand=True)), Form.JSON)).text)
    assert joined(found["text"]) == "\n".join(f"Line number {n} of the turned page" for n in range(8))
    (x, y) = next(line["box"][0] for line in found["lines"] if "number 0" in line["text"])
    expected = {90: (40, 700 - 60), 180: (700 - 60, 480 - 40), 270: (480 - 40, 60)}[degrees]
    assert abs(x - expected[0]) < 20
    assert abs(y - expected[1]) < 20


def test_long_lines_of_small_print_are_not_turned_upside_down(engine):
    words = ["the", "quick", "brown", "fox", "jumps", "over", "seven", "lazy", "wizards", "while", "ancient", "towers", "leave"]
    chance = random.Random(5)
    lines = [" ".join(chance.choice(words) for _ in range(17)) for _ in range(10)]
    image = drawn(*[(30, 30 + 30 * n, line) for n, line in enumerate(lines)], size=(1400, 360), font=18)
    assert joined(text_of(engine, image)) == "\n".join(lines)


def test_a_tall_screenshot_keeps_its_small_print_readable(engine):
    lines = [f"message {n} of the long conversation" for n in range(0, 200, 4)]
    image = drawn(*[(30, 40 + 110 * n, line) for n, line in enumerate(lines)], size=(700, 5600), font=20)
    assert joined(text_of(engine, image)) == "\n".join(lines)


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_see_through_parts_are_white(engine, mode):
    black, clear = {"RGBA": ((0, 0, 0, 255), (0, 0, 0, 0)), "LA": ((0, 255), (0, 0))}[mode]
    image = drawn((40, 40, "Black on nothing"), mode=mode, paper=clear, colour=black)
    assert text_of(engine, image) == "Black on nothing"


@pytest.mark.parametrize("colour", ["white", "black"])
def test_text_on_a_clear_ground_is_read_whatever_its_colour(engine, colour):
    image = drawn((40, 40, "INVOICE 4711"), (40, 100, "Total due 128.50"), colour=colour, mode="RGBA", paper=(0, 0, 0, 0))
    assert "4711" in text_of(engine, image)


def test_a_16_bit_picture_is_not_clipped_to_white(engine):
    grey = np.asarray(drawn((40, 40, "Sixteen bits deep"), colour="#404040", paper="#c0c0c0").convert("L"))
    assert text_of(engine, Image.fromarray(grey.astype(np.uint16) * 257)) == "Sixteen bits deep"


def test_bytes_that_are_no_picture_are_named_unreadable(engine):
    answer = engine.ask(call(b"GIF89a not a picture"))
    assert (answer.finish, answer.code) == (Finish.UNREADABLE, ItemCode.IMAGE_CORRUPT)
    assert answer.text == ""


def test_a_call_with_two_pictures_is_refused(engine):
    picture = Picture(number=1, mime="image/png", data=b"")
    with pytest.raises(ValueError, match="1 picture a call, not 2"):
        engine.ask(Call(prompt="", form=Form.TEXT, json_mode=False, pictures=(picture, picture), timeout=1))


def test_every_job_is_told_that_the_prompt_is_not_followed(engine):
    (warning,) = engine.warnings
    assert "does not follow the prompt" in warning
    assert "GEMINI_API_KEY" in warning


# --- one server for the machine ---

ASK_AND_WAIT = """
import sys, pathlib, time
from pipeline.engines.ocr.engine import OcrEngine
engine = OcrEngine(pathlib.Path(sys.argv[1]), grace=0.5)
print(engine.server_pid(), flush=True)
sys.stdin.read()
"""


@contextlib.contextmanager
def other_process(directory):
    command = [sys.executable, "-c", ASK_AND_WAIT, str(directory)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def test_engines_of_several_processes_and_threads_that_start_at_once_share_one_server(tmp_path):
    here = OcrEngine(tmp_path / "ocr", grace=0.5)
    with (
        other_process(tmp_path / "ocr") as one,
        other_process(tmp_path / "ocr") as two,
        ThreadPoolExecutor(3) as pool,
    ):
        pids = set(pool.map(lambda _: here.server_pid(), range(3)))
        pids |= {int(one.stdout.readline()), int(two.stdout.readline())}
        assert len(pids) == 1
        assert pids != {os.getpid()}
    here.close()


def test_the_server_ends_soon_after_its_last_engine_was_killed(tmp_path):
    with other_process(tmp_path / "ocr") as one, other_process(tmp_path / "ocr") as two:
        pid = int(one.stdout.readline())
        assert int(two.stdout.readline()) == pid
        one.kill()
        one.wait()
        with contextlib.closing(OcrEngine(tmp_path / "ocr")) as third:
            assert third.server_pid() == pid
        two.kill()
        two.wait()
        eventually(lambda: not alive(pid))
    assert not (tmp_path / "ocr" / "ocr.sock").exists()


def test_a_server_that_ended_when_idle_is_started_again_for_the_next_call(tmp_path):
    engine = OcrEngine(tmp_path / "ocr", grace=0.5, idle=0.2)
    pid = engine.server_pid()
    eventually(lambda: not alive(pid))
    assert text_of(engine, HELLO) == HELLO_TEXT
    engine.close()


def test_a_server_that_is_killed_with_calls_in_its_queue_is_replaced(tmp_path):
    engine = OcrEngine(tmp_path / "ocr", grace=0.5)
    pid = engine.server_pid()
    os.kill(pid, signal.SIGSTOP)
    with ThreadPoolExecutor(3) as pool:
        answers = [pool.submit(text_of, engine, HELLO) for _ in range(3)]
        os.kill(pid, signal.SIGKILL)
        assert {answer.result() for answer in answers} == {HELLO_TEXT}
    assert engine.server_pid() != pid
    engine.close()


def test_the_server_knows_no_key_of_the_service(tmp_path, monkeypatch):
    monkeypatch.setenv("GEMINI_API_KEY", "a-secret")
    engine = OcrEngine(tmp_path / "ocr", grace=0.5)
    pid = engine.server_pid()
    environment = Path(f"/proc/{pid}/environ")
    if not environment.exists():
        pytest.skip("this system does not show a process's environment")
    assert b"a-secret" not in environment.read_bytes()
    engine.close()


def test_a_directory_that_others_may_enter_is_refused(tmp_path):
    tmp_path.chmod(0o755)
    with pytest.raises(PermissionError, match="mode 0700"):
        OcrEngine(tmp_path)


def test_a_directory_with_a_path_too_long_for_a_socket_works(tmp_path):
    engine = OcrEngine(tmp_path / ("d" * 120), grace=0.5)
    pid = engine.server_pid()
    assert engine.server_pid() == pid
    engine.close()
    eventually(lambda: not alive(pid))
    shutil.rmtree(engine._directory)  # it lies in the system's temporary directory, which pytest does not clean


# --- when the server fails: a server that says what the test wants ---


class Puppet:
    """Listens where the server would. `script` gets each connection on which a picture was asked for."""

    def __init__(self, directory, script):
        directory.mkdir(mode=0o700)
        self.asked = 0
        self._script = script
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(directory / "ocr.sock"))
        self._listener.listen()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def close(self):
        self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join()

    def _serve(self):
        with self._listener, contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                threading.Thread(target=self._attend, args=(connection,), daemon=True).start()

    def _attend(self, connection):
        with connection, contextlib.suppress(OSError, EOFError):
            while True:
                request, _ = receive(connection, OcrRequest)
                if request.kind == "status":
                    send(connection, OcrReply(kind="status", pid=1))
                else:
                    self.asked += 1
                    if not self._script(connection, self.asked):
                        return


@pytest.fixture
def puppet_engine(tmp_path):
    """Makes a puppet and an engine that takes it for the server."""
    with contextlib.ExitStack() as made:

        def make(script):
            puppet = made.enter_context(contextlib.closing(Puppet(tmp_path / "p", script)))
            return puppet, made.enter_context(contextlib.closing(OcrEngine(tmp_path / "p")))

        yield make


READ = OcrReply(kind="reading", model_version="m")


def test_a_picture_whose_server_died_once_is_asked_again(puppet_engine):
    def script(connection, asked):
        send(connection, OcrReply(kind="started"))
        if asked == 2:
            send(connection, READ)
        return asked == 2

    puppet, engine = puppet_engine(script)
    assert engine.ask(call(b"picture")).model_version == "m"
    assert puppet.asked == 2


def test_a_picture_that_killed_the_server_twice_is_at_fault(puppet_engine):
    def script(connection, asked):
        send(connection, OcrReply(kind="started"))

    puppet, engine = puppet_engine(script)
    with pytest.raises(ModelFault, match="died twice"):
        engine.ask(call(b"picture"))
    assert puppet.asked == 2


def test_a_picture_that_waits_while_others_kill_the_server_is_not_at_fault(puppet_engine):
    puppet, engine = puppet_engine(lambda connection, asked: False)
    with pytest.raises(ModelUnavailable, match="keeps dying"):
        engine.ask(call(b"picture"))
    assert puppet.asked > 2


def test_a_picture_that_takes_too_long_is_at_fault_and_one_that_only_waited_is_not(puppet_engine):
    def script(connection, asked):
        if asked == 1:
            send(connection, OcrReply(kind="started"))
        connection.recv(1)

    _, engine = puppet_engine(script)
    with pytest.raises(ModelFault, match="did not read the picture"):
        engine.ask(call(b"picture", timeout=0.05))
    with pytest.raises(ModelUnavailable, match="busy"):
        engine.ask(call(b"picture", timeout=0.05))


def test_a_fault_of_the_models_is_a_fault_of_the_call_and_the_connection_stays(puppet_engine):
    def script(connection, asked):
        send(connection, OcrReply(kind="started"))
        send(connection, OcrReply(kind="fault", detail="Boom") if asked == 1 else READ)
        return True

    _, engine = puppet_engine(script)
    with pytest.raises(ModelFault, match="Boom"):
        engine.ask(call(b"picture"))
    assert engine.ask(call(b"picture")).text == ""


def test_what_is_no_message_is_taken_for_a_dead_server(puppet_engine):
    def script(connection, asked):
        connection.sendall(b"\xff" * 64)

    _, engine = puppet_engine(script)
    with pytest.raises(ModelUnavailable):
        engine.ask(call(b"picture"))


def test_a_closed_engine_asks_nothing(puppet_engine):
    puppet, engine = puppet_engine(lambda connection, asked: send(connection, READ))
    engine.close()
    with pytest.raises(ModelUnavailable, match="closed"):
        engine.ask(call(b"picture"))
    assert puppet.asked == 0
