"""Coming in and going out."""

import pytest
from conftest_people import PASSWORD

from dashboard import throttle

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "history"])


def try_to_enter(client, username="vera", password=PASSWORD, path="/", **headers):
    return client.post(path, {"username": username, "password": password}, **headers)


def test_strangers_see_the_log_in_page(client):
    """At `/` there is a form with the two fields, and nothing of the fleet."""
    page = client.get("/").content.decode()
    assert 'name="username"' in page
    assert 'name="password"' in page
    assert 'id="overview"' not in page


def test_the_right_password_leads_to_the_overview(client, people):
    """Log-in at `/`, overview at `/`."""
    answer = try_to_enter(client)
    assert (answer.status_code, answer["Location"]) == (302, "/")
    assert 'id="overview"' in client.get("/").content.decode()


def test_the_wrong_password_does_not(client, people):
    """A wrong password says so and logs nobody in."""
    answer = try_to_enter(client, password="wrong")
    assert "Please enter the correct username and password" in answer.content.decode()
    assert "_auth_user_id" not in client.session


def test_who_has_no_role_is_not_let_in(client, people):
    """An account without the staff mark sees nothing."""
    try_to_enter(client, "charlie")
    assert "_auth_user_id" not in client.session


def test_attempts_are_bounded(client, people):
    """After ten wrong tries the right password is not looked at, elsewhere it is."""
    for _ in range(throttle.MAX_ATTEMPTS):
        try_to_enter(client, "VERA", password="wrong")
    assert "Too many attempts. Wait 5 minutes" in try_to_enter(client).content.decode()
    assert "_auth_user_id" not in client.session
    assert try_to_enter(client, REMOTE_ADDR="192.0.2.7").status_code == 302


def test_success_forgets_failures(client, people):
    """Whoever logs in starts anew."""
    for _ in range(2):
        for _ in range(throttle.MAX_ATTEMPTS - 1):
            try_to_enter(client, password="wrong")
        assert try_to_enter(client).status_code == 302
        client.post("/logout/")


def test_names_tried_from_one_address_are_bounded(client, people, monkeypatch):
    """Trying one password on many names is bounded as well."""
    monkeypatch.setattr(throttle, "MAX_ATTEMPTS_PER_ADDRESS", 3)
    for number in range(3):
        try_to_enter(client, f"name-{number}")
    assert "Too many attempts" in try_to_enter(client).content.decode()


def test_the_admin_has_no_door_of_its_own(client, people):
    """Its log-in leads to ours and back to the page asked for; a foreign page is not gone to."""
    assert client.get("/admin/auth/user/")["Location"] == "/admin/login/?next=/admin/auth/user/"
    answer = client.get("/admin/login/?next=/admin/auth/user/")
    assert answer["Location"] == "/?next=%2Fadmin%2Fauth%2Fuser%2F"
    assert client.post("/admin/login/", {"username": "alice", "password": PASSWORD}).status_code == 302
    assert "_auth_user_id" not in client.session
    answer = try_to_enter(client, path="/?next=%2Fadmin%2Fappliance%2Fnode%2F")
    assert answer["Location"] == "/admin/appliance/node/"
    assert client.get("/?next=https://elsewhere.example/").status_code == 200


@pytest.mark.parametrize("path", ["/logout/", "/admin/logout/"])
def test_going_out(log_in, path):
    """POST logs out; GET does not."""
    client = log_in("vera")
    assert client.get(path).status_code == 405
    assert client.post(path)["Location"] == "/"
    assert "_auth_user_id" not in client.session
