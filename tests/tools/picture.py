"""The picture of a report for the README: its top by day, its map by night. python tests/picture.py REPORT OUT.png."""

import base64
import io
import sys
import tempfile
from pathlib import Path

from PIL import Image
from selenium import webdriver

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
WIDTH, HEIGHT = 1160, 1240
SHOWN_WIDTH, COLOURS = 1400, 128


def open_chromium(profile: Path) -> webdriver.Chrome:
    """A Chromium without a window and with an empty profile, which records what it asks the network for."""
    options = webdriver.ChromeOptions()
    options.binary_location = "/usr/bin/chromium"
    for flag in (*FLAGS, f"--user-data-dir={profile}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    return webdriver.Chrome(options=options, service=webdriver.ChromeService("/usr/bin/chromedriver"))


def set_screen(driver: webdriver.Chrome, theme: str, width: int, height: int = HEIGHT) -> None:
    """Give the page a size and the theme that the system would ask for."""
    media = {"features": [{"name": "prefers-color-scheme", "value": theme}]}
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
    size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)


def picture_of(driver: webdriver.Chrome, selector: str, height: int) -> Image.Image:
    """What stands on the page from this element on."""
    script = "return document.querySelector(arguments[0]).getBoundingClientRect().top + scrollY"
    clip = {
        "x": 0,
        "y": max(0, driver.execute_script(script, selector) - 24),
        "width": WIDTH,
        "height": height,
        "scale": 1,
    }
    shot = driver.execute_cdp_cmd("Page.captureScreenshot", {"clip": clip, "captureBeyondViewport": True})
    return Image.open(io.BytesIO(base64.b64decode(shot["data"]))).convert("RGB")


def main(report: Path, out: Path) -> None:
    """Two pieces of the report side by side, small enough to be kept in the repository."""
    with tempfile.TemporaryDirectory() as profile:
        driver = open_chromium(Path(profile))
        pieces = []
        for theme, selector in (("light", "header"), ("dark", "#map h2")):
            set_screen(driver, theme, WIDTH)
            driver.get(report.resolve().as_uri())
            pieces.append(picture_of(driver, selector, HEIGHT))
        driver.quit()
    both = Image.new("RGB", (2 * WIDTH, HEIGHT))
    for i, piece in enumerate(pieces):
        both.paste(piece, (i * WIDTH, 0))
    small = both.resize((SHOWN_WIDTH, HEIGHT * SHOWN_WIDTH // (2 * WIDTH)), Image.Resampling.LANCZOS)
    small.quantize(COLOURS, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE).save(out, optimize=True)
    print(f"{out}: {out.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
