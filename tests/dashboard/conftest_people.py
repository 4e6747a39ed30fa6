"""The password that everybody has in the dashboard's tests."""

PASSWORD = "a-long-password"
