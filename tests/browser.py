"""Debian's chromium, headless, as tests drive it: quiet in the background, with all that it loads or says on record."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

from selenium.webdriver import Chrome, ChromeOptions, ChromeService

FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage",
    "--hide-scrollbars",
)  # fmt: skip
INSTALL = "make test installs it; by hand: apt-get install chromium chromium-driver"


@contextlib.contextmanager
def browsing(profile: Path) -> Iterator[Browser]:
    """A browser with a profile of its own, for as long as the block lasts.

    Raises:
        RuntimeError: chromium or its driver is not installed.
    """
    paths = {name: shutil.which(name) for name in ("chromium", "chromedriver")}
    if missing := [name for name, path in paths.items() if path is None]:
        raise RuntimeError(f"{' and '.join(missing)} not found: {INSTALL}")
    options = ChromeOptions()
    options.binary_location = paths["chromium"]
    for flag in (*FLAGS, f"--user-data-dir={profile}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    browser = Browser(options=options, service=ChromeService(executable_path=paths["chromedriver"]))
    # Else no window has the focus, and nothing in it.
    browser.execute_cdp_cmd("Emulation.setFocusEmulationEnabled", {"enabled": True})
    # Its first page is chromium's own, and not quiet.
    browser.get("about:blank")
    browser.requested(), browser.complaints()
    try:
        yield browser
    finally:
        browser.quit()


class Browser(Chrome):
    """A window with the settings of a device and its owner, and what the page did."""

    def look_like(self, width: int, height: int, scheme: str = "light") -> None:
        """A screen of CSS pixels, with two device pixels each, in "light" or "dark"."""
        metrics = {"width": width, "height": height, "deviceScaleFactor": 2, "mobile": False}
        self.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})

    def js(self, expression: str) -> object:
        return self.execute_script(f"return {expression}")

    def requested(self) -> list[str]:
        """Addresses of everything that was loaded since the last call, data URLs left out."""
        messages = [json.loads(entry["message"])["message"] for entry in self.get_log("performance")]
        sent = [one["params"]["request"]["url"] for one in messages if one["method"] == "Network.requestWillBeSent"]
        return [url for url in sent if not url.startswith("data:")]

    def complaints(self) -> list[str]:
        """What the console says since the last call."""
        return [entry["message"] for entry in self.get_log("browser")]
