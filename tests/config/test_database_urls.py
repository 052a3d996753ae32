"""DATABASE_URL: what is taken, which part is named when it is not, and that no piece of it is shown."""

import hypothesis
import pytest
from hypothesis import strategies as st

from pipelines.config.database_urls import normalise_database_url
from pipelines.config.settings import SettingsError, load_settings


@pytest.mark.parametrize("given", ["postgresql://u:a#b:c@[::1]:5432/d", "postgresql://%2Frun%2Fpg/d",
                                   "postgresql://u@h/d?options=-c%20jit%3Doff", "postgresql://u@h/d?ssl=true",
                                   "postgresql://u@h/d?password=a@b", "postgresql://u:p@/d?host=/tmp&port=1"])
def test_unusual_addresses_are_taken(given: str) -> None:
    assert normalise_database_url(given) == given


@pytest.mark.parametrize(("given", "part"), [
    ("me@tenant:hush@h/d", "the user holds @"), ("me/x:hush@h/d", "the user holds /"),
    ("u:hu@sh@h/d", "the password holds @"), ("u:hu/sh@h/d", "the password holds /"),
    ("u:hu#s/h@h/d", "the password holds /"), ("u:hu?s=h@h/d", "the password holds ?"),
    ("u:12?hush@h/d", "the password holds ?"), ("u:12?hush=x@h/d", "another program"),
    ("u:12/hush@h/d", "the password holds /"), ("u:hush%zz@h/d", "the password holds a %"),
    ("u:p@h:hush/d", "the port"), ("u:hush/d", "the port"), ("u:p@h:99999/d", "the port"),
    ("u:hush%a1@h/d", "the password holds a %"),
    ("u:hush@h ost/d", "the host"), ("u:hush@h/d#x", "is not the address"),
    ("u:hush@h/d?pgbouncer=true", "pgbouncer"), ("u:hush@h/d?schema=public&sslmode=require", "schema"),
    ("u:hush@h/d?connection_limit=5", "connection_limit"), ("u:hush@h/d?sslmode=no-verify", "sslmode"),
    ("u:hush@h/d?connect_timeout=soon", "connect_timeout"), ("u:p@h/d?a=1&b", "another program")])
def test_a_wrong_part_of_the_address_is_named_and_nothing_of_it_shown(given: str, part: str) -> None:
    with pytest.raises(SettingsError, match="DATABASE_URL") as refusal:
        load_settings(database_url=f"postgresql://{given}")
    assert part in str(refusal.value)
    assert not any(piece in str(refusal.value).replace("password", "") for piece in ("hush", "hu", "tenant"))


@pytest.mark.parametrize("given", ["host=h port=hush", "host=h password=a hush", "host=h,i port=1,hush"])
def test_a_wrong_part_of_the_key_word_form_is_not_shown(given: str) -> None:
    with pytest.raises(SettingsError, match="DATABASE_URL") as refusal:
        load_settings(database_url=given)
    assert "hush" not in str(refusal.value)


@hypothesis.given(st.text(alphabet="ab1:@/?#%&=[], ", max_size=25))
@hypothesis.settings(max_examples=1000, deadline=None)
def test_whatever_the_address_no_piece_of_it_is_shown(rest: str) -> None:
    """An address is either taken or refused in a sentence that is the same for other letters."""
    def message(text: str) -> str:
        try:
            normalise_database_url(f"postgresql://{text}")
        except ValueError as reason:
            return str(reason)
        return ""

    assert message(rest) == message(rest.replace("a", "c").replace("b", "d")) or "another program" in message(
        rest)
