"""The browser's fixtures, for all tests of this folder."""

from pages import browser, open_page, screenshots

__all__ = ["browser", "open_page", "screenshots"]
