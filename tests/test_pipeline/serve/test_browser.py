"""The page in a browser: labels, bars and nearest images of what is chosen, no request elsewhere, names as text."""

from __future__ import annotations

import io
import json
from pathlib import Path
from threading import Thread

import numpy as np
import pytest
from PIL import Image
from serving import FakeModel

from featurecache.runs.split_list import ListedImage
from featurecache.serve.access import Access
from featurecache.serve.application import Application
from featurecache.serve.connections import Server, listen
from featurecache.serve.nearest import Neighbours

CHROMIUM, DRIVER = Path("/usr/bin/chromium"), Path("/usr/bin/chromedriver")
SCRIPT = "<img src=x onerror=alert(1)>"
TOKEN = "a-token-of-24-characters"


@pytest.fixture(scope="module")
def driver(tmp_path_factory):
    if not (CHROMIUM.exists() and DRIVER.exists()):
        pytest.skip("needs chromium and chromium-driver")
    pytest.importorskip("selenium")
    from picture import open_chromium

    found = open_chromium(tmp_path_factory.mktemp("profile"))
    yield found
    found.quit()


class Neighbourhood(Neighbours):
    """Training images with a picture each."""

    has_thumbnails = True

    def thumbnail(self, number):
        buffer = io.BytesIO()
        Image.new("RGB", (20, 10), (number * 90, 0, 0)).save(buffer, "JPEG")
        return buffer.getvalue()


def address_of(access):
    """Yield the address of a service with hostile names."""
    X = np.array([[1, 1, 1], [137, 137, 137], [139, 137, 137]], np.float32)
    images = [ListedImage(f"{i}.png", label, "train", "0" * 64) for i, label in enumerate(["7", SCRIPT, "12"])]
    model = FakeModel(classes=["12", SCRIPT])
    app = Application(model, access=access, neighbours=Neighbourhood(X, images))
    app.batcher.start()
    listener = listen("127.0.0.1", 0)
    server = Server(app, signals=())
    thread = Thread(target=server.run, args=([listener],))
    port = listener.getsockname()[1]
    thread.start()
    yield f"http://127.0.0.1:{port}/"
    server.should_exit = True
    thread.join(20)


@pytest.fixture(scope="module")
def address():
    yield from address_of(Access())


def wait_for(driver, script):
    from selenium.webdriver.support.ui import WebDriverWait

    return WebDriverWait(driver, 20, poll_frequency=0.02).until(lambda it: it.execute_script(f"return {script}"))


@pytest.fixture(scope="module")
def shown(driver, address, tmp_path_factory):
    """The page after an image and a file that is none were chosen, on a screen of a phone."""
    folder = tmp_path_factory.mktemp("chosen")
    image, none = folder / "<b>bold.png", folder / "none.png"
    Image.new("RGB", (30, 20), "red").save(image)
    none.write_bytes(b"bad")
    size = {"width": 360, "height": 740, "deviceScaleFactor": 2, "mobile": True}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    driver.get_log("performance")
    driver.get(address)
    wait_for(driver, "document.getElementById('facts').textContent.includes('2 classes')")
    driver.find_element("id", "choose").send_keys(f"{image}\n{none}")
    wait_for(driver, "document.querySelectorAll('.near img[src]').length === 3")
    wait_for(driver, "document.body.textContent.includes('no image that can be read')")
    return driver


def test_an_image_has_its_label_with_bars_and_the_nearest_training_images(shown):
    read = "return [...document.querySelectorAll(arguments[0])].map((each) => each.textContent)"
    assert shown.execute_script(read, ".label") == [SCRIPT]
    rows = shown.execute_script(read, ".bars > *")
    assert [rows[0], rows[3]] == [SCRIPT, "12"]
    assert rows[2].endswith(" %")
    assert shown.execute_script("return document.querySelector('.bars meter').value") == pytest.approx(
        0x89 / 256 + 1 / 3000
    )
    assert [each.split("distance")[0] for each in shown.execute_script(read, ".near li")] == [SCRIPT, "12", "7"]


def test_names_are_text(shown):
    assert shown.execute_script("return document.querySelectorAll('b, img[onerror], img[src=x]').length") == 0
    assert "<b>bold.png" in shown.find_element("id", "results").text


def test_it_fits_a_phone(shown):
    assert shown.execute_script("return document.documentElement.scrollWidth") <= 360


def test_it_asks_no_other_host_and_reports_no_error(shown, address):
    for entry in shown.get_log("performance"):
        message = json.loads(entry["message"])["message"]
        if message["method"] == "Network.requestWillBeSent":
            url = message["params"]["request"]["url"]
            assert url.startswith((address, "blob:", "data:")), url
    errors = [entry for entry in shown.get_log("browser") if entry["level"] == "SEVERE"]
    assert all("predict" in entry["message"] and "422" in entry["message"] for entry in errors), errors


def test_with_a_token_it_asks_for_it_first(driver, tmp_path):
    for address in address_of(Access(token=TOKEN)):
        driver.get(address)
        wait_for(driver, "!document.getElementById('access').hidden")
        driver.find_element("id", "token").send_keys(TOKEN)
        driver.find_element("css selector", "#access button").click()
        assert wait_for(driver, "document.getElementById('facts').textContent.includes('2 classes')")
