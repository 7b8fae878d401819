"""Keys that somebody else changes: read in the background, one reading at a time, and kept while he is away."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from typing import Any

import pytest

from iogate import AuthUnavailable, ConfigurationError, InvalidToken, JWTAuth, KeySetURL, TokenExpired, background
from iogate.keys import refreshed
from iogate.keys.refreshed import Refreshed
from tests.keys.keyserver import CONFIGURATION, KEYS, WITHIN, Answer, KeyServer, crash, document, failure, text
from tests.keys.support import Issuer, discovery, jwk, key_set_url

pytestmark = pytest.mark.parametrize("source", [key_set_url, discovery], ids=["address", "discovery"])


async def test_the_first_token_gets_the_keys(server: KeyServer, issuer: Issuer, source: Any) -> None:
    auth = issuer.auth(source(server, issuer))
    principal = await auth.verify_async(issuer.token())
    assert (principal.subject, principal.key_id) == ("alice", "ES256")
    assert principal.key_thumbprint is not None
    assert auth.verify(issuer.token()).subject == "alice"
    assert server.count() == 1


async def test_what_is_not_at_hand_is_not_gone_for_by_verify(server: KeyServer, issuer: Issuer, source: Any) -> None:
    auth = issuer.auth(source(server, issuer))
    with pytest.raises(AuthUnavailable, match="await verify_async"):
        auth.verify(issuer.token())
    assert server.asked == []


async def test_many_that_come_at_once_are_one_reading(server: KeyServer, issuer: Issuer, source: Any) -> None:
    auth = issuer.auth(source(server, issuer))
    people = [f"person {number}" for number in range(50)]
    found = await asyncio.gather(*(auth.verify_async(issuer.token(sub=name)) for name in people))
    assert [principal.subject for principal in found] == people
    assert server.count() == 1


async def test_however_many_ask_one_task_keeps_the_keys_fresh(server: KeyServer, issuer: Issuer, source: Any) -> None:
    keys = source(server, issuer)
    auth = issuer.auth(keys)
    for kid in ["ES256", "invented", "another"]:
        with contextlib.suppress(InvalidToken, AuthUnavailable):
            await auth.verify_async(issuer.token(kid=kid))
    await keys.refresh()
    keepers = [task for task in asyncio.all_tasks() if "keep_fresh" in repr(task.get_coro())]
    assert keepers == [keys._keeper]
    await keys.stop(_nothing)


async def test_one_that_goes_away_takes_the_reading_from_nobody(server: KeyServer, issuer: Issuer, source: Any) -> None:
    auth = issuer.auth(source(server, issuer))
    impatient, patient = (asyncio.create_task(auth.verify_async(issuer.token())) for _ in range(2))
    await server.was_asked(path=server.asked[0].path if server.asked else _first(source))
    impatient.cancel()
    assert (await patient).subject == "alice"
    assert impatient.cancelled()


async def test_a_new_key_is_found_by_the_first_token_it_has_signed(
    server: KeyServer, issuer: Issuer, source: Any
) -> None:
    """Rotation: nobody who has a token of the old key or of the new one is refused."""
    auth = issuer.auth(source(server, issuer))
    await auth.verify_async(issuer.token())
    server.publish(jwk("ES256"), jwk("ES384"))
    tokens = [issuer.token(algorithm) for algorithm in ["ES384", "ES256"] * 10]
    await asyncio.gather(*map(auth.verify_async, tokens))
    assert server.count() == 2


async def test_unknown_keys_cause_one_reading_a_cooldown(server: KeyServer, issuer: Issuer, source: Any) -> None:
    auth = issuer.auth(source(server, issuer, cooldown=30))
    await auth.verify_async(issuer.token())
    with pytest.raises(InvalidToken, match="no key"):
        await auth.verify_async(issuer.token(kid="invented"))
    for number in range(20):
        with pytest.raises(AuthUnavailable, match="cooldown"):
            await auth.verify_async(issuer.token(kid=f"invented {number}"))
    assert server.count() == 2
    issuer.clock.advance(29.9)
    another = issuer.token(kid="another")
    with pytest.raises(AuthUnavailable):
        await auth.verify_async(another)
    assert server.count() == 2
    issuer.clock.advance(0.2)
    with pytest.raises(InvalidToken):
        await auth.verify_async(another)
    assert server.count() == 3


async def test_an_unknown_key_is_a_bad_one_when_a_later_reading_has_not_got_it(
    server: KeyServer, issuer: Issuer, source: Any
) -> None:
    """Whatever that reading was made for; and the same name in another token says nothing of this one."""
    keys = source(server, issuer, cooldown=3600)
    auth = issuer.auth(keys)
    with pytest.raises(InvalidToken):
        await auth.verify_async(issuer.token(kid="invented"))
    forged, good = issuer.token(kid="ES384"), issuer.token("ES384")
    with pytest.raises(AuthUnavailable):
        await auth.verify_async(forged)
    await keys.refresh()  # A regular one.
    for _ in range(3):
        with pytest.raises(InvalidToken, match="no key"):
            await auth.verify_async(forged)
    with pytest.raises(AuthUnavailable, match="cooldown"):
        await auth.verify_async(good)
    server.publish(jwk("ES256"), jwk("ES384"))
    await keys.refresh()
    assert (await auth.verify_async(good)).subject == "alice"


async def test_a_reading_that_was_under_way_says_nothing_of_a_token_that_comes_meanwhile(
    server: KeyServer, issuer: Issuer, source: Any
) -> None:
    """Its key may have been published after the reading had begun."""
    keys = source(server, issuer, cooldown=3600)
    auth = issuer.auth(keys)
    with pytest.raises(InvalidToken):
        await auth.verify_async(issuer.token(kid="invented"))
    server.answers[KEYS] = server.stalled({"keys": [jwk("ES256")]})
    reading = asyncio.create_task(keys.refresh())
    await server.was_asked(server.count() + 1)
    good = issuer.token("ES384")
    waiting = asyncio.create_task(auth.verify_async(good))
    await asyncio.sleep(0)
    server.publish(jwk("ES256"), jwk("ES384"))
    server.let_go()
    await reading
    with pytest.raises(AuthUnavailable, match="cooldown"):
        await waiting
    await keys.refresh()
    assert (await auth.verify_async(good)).subject == "alice"


async def test_a_token_waits_only_so_long_for_its_key(
    server: KeyServer, issuer: Issuer, source: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reading goes on for the others, and what the client is told is not that its token is bad."""
    monkeypatch.setattr(refreshed, "PATIENCE", 0.01)
    keys = source(server, issuer)
    auth = issuer.auth(keys)
    server.answers[_first(source)] = server.held
    with pytest.raises(AuthUnavailable, match="still being read"):
        await auth.verify_async(issuer.token())
    assert keys._reading is not None
    await keys.stop(_nothing)


async def test_an_expired_token_of_a_new_key_is_an_expired_one(server: KeyServer, issuer: Issuer, source: Any) -> None:
    """Its client is to refresh it, and not to sign in again: that depends on its signature."""
    auth = issuer.auth(source(server, issuer))
    await auth.verify_async(issuer.token())
    server.publish(jwk("ES256"), jwk("ES384"))
    with pytest.raises(TokenExpired):
        await auth.verify_async(issuer.token("ES384", exp=issuer.clock.wall() - 1))


async def test_an_expired_token_of_no_key_is_not_called_expired(server: KeyServer, issuer: Issuer, source: Any) -> None:
    """That would promise that nothing else is wrong with it."""
    auth = issuer.auth(source(server, issuer))
    expires_at = issuer.clock.wall() - 1
    for expected in (InvalidToken, AuthUnavailable):
        with pytest.raises(expected) as error:
            await auth.verify_async(issuer.token(kid="invented", exp=expires_at))
        assert not isinstance(error.value, TokenExpired)


async def test_a_token_that_expires_while_its_key_is_read_is_refused(
    server: KeyServer, issuer: Issuer, source: Any
) -> None:
    """G11: what was right before the wait is looked at again after it."""
    auth = issuer.auth(source(server, issuer))
    await auth.verify_async(issuer.token())
    server.answers[KEYS] = server.stalled({"keys": [jwk("ES256"), jwk("ES384")]})
    waiting = asyncio.create_task(auth.verify_async(issuer.token("ES384", exp=issuer.clock.wall() + 5)))
    await server.was_asked(2)
    issuer.clock.advance(5)
    server.let_go()
    with pytest.raises(TokenExpired):
        await waiting


async def test_the_first_token_of_all_may_name_a_key_that_does_not_exist(
    server: KeyServer, issuer: Issuer, source: Any
) -> None:
    auth = issuer.auth(source(server, issuer))
    with pytest.raises(InvalidToken):
        await auth.verify_async(issuer.token(kid="invented"))
    assert server.count() == 2  # The reading that was due, and the one that the cool-down allows.
    assert (await auth.verify_async(issuer.token())).subject == "alice"


async def test_a_key_published_during_a_reading_is_found_by_the_next(
    server: KeyServer, issuer: Issuer, source: Any
) -> None:
    """A reading that was under way when the token came may have begun before its key was there."""
    keys = source(server, issuer)
    auth = issuer.auth(keys)
    await auth.verify_async(issuer.token())
    server.answers[KEYS] = server.stalled({"keys": [jwk("ES256")]})
    reading = asyncio.create_task(keys.refresh())
    await server.was_asked(2)
    waiting = asyncio.create_task(auth.verify_async(issuer.token("ES384")))
    await asyncio.sleep(0)
    server.publish(jwk("ES256"), jwk("ES384"))
    server.let_go()
    await reading
    assert (await waiting).subject == "alice"
    assert server.count() == 3


async def test_a_removed_key_verifies_nothing_from_then_on(server: KeyServer, issuer: Issuer, source: Any) -> None:
    keys = source(server, issuer)
    auth = issuer.auth(keys)
    principal = await auth.verify_async(issuer.token())
    server.publish(jwk("ES384"))
    await keys.refresh()
    with pytest.raises(InvalidToken):
        await auth.verify_async(issuer.token())
    auth.recheck(principal)  # Who is in stays in, unless it was said otherwise.


async def test_a_removed_key_ends_what_it_signed_if_that_is_wanted(
    server: KeyServer, issuer: Issuer, source: Any
) -> None:
    keys = source(server, issuer, revoke_removed=True)
    auth = issuer.auth(keys)
    told: list[str] = []

    def changed() -> None:
        told.append("changed")

    auth.start(changed)
    principal = await auth.verify_async(issuer.token())
    server.publish(jwk("ES256"), jwk("ES384"))
    await keys.refresh()
    auth.recheck(principal)
    assert told == []
    server.publish(jwk("ES384"))
    await keys.refresh()
    assert told == ["changed"]
    with pytest.raises(InvalidToken, match="removed"):
        auth.recheck(principal)
    await auth.stop(changed)


async def test_another_key_under_the_same_name_is_another_key(server: KeyServer, issuer: Issuer, source: Any) -> None:
    keys = source(server, issuer, revoke_removed=True)
    auth = issuer.auth(keys)
    server.publish(jwk("ES256", kid="signing"))
    principal = await auth.verify_async(issuer.token(kid="signing"))
    server.publish(jwk("ES384", kid="signing"))
    await keys.refresh()
    with pytest.raises(InvalidToken, match="removed"):
        auth.recheck(principal)
    assert (await auth.verify_async(issuer.token("ES384", kid="signing"))).subject == "alice"


async def test_a_listener_that_fails_keeps_nobody_from_fresh_keys(
    server: KeyServer, issuer: Issuer, source: Any, caplog: pytest.LogCaptureFixture
) -> None:
    def broken() -> None:
        raise RuntimeError("the inside")

    keys = source(server, issuer, revoke_removed=True)
    keys.start(broken)
    await keys.refresh()
    server.publish(jwk("ES384"))
    await keys.refresh()
    assert "could not look at its sockets" in caplog.text
    assert (await issuer.auth(keys).verify_async(issuer.token("ES384"))).subject == "alice"


BROKEN: dict[str, Answer] = {
    "500": failure(500),
    "HTML": text("<!doctype html>", content_type="text/html"),
    "an empty set": document({"keys": []}),
    "no set": document({"error": "later"}),
    "secrets": document({"keys": [{"kty": "oct", "k": "c2VjcmV0", "kid": "ES256"}]}),
    "hangs up": crash,
}


@pytest.mark.parametrize("trouble", BROKEN)
async def test_a_reading_that_fails_takes_no_key_away(
    server: KeyServer, issuer: Issuer, source: Any, trouble: str, caplog: pytest.LogCaptureFixture
) -> None:
    keys = source(server, issuer, keep_for=1000, every=100)
    auth = issuer.auth(keys)
    await auth.verify_async(issuer.token())
    server.answers[KEYS] = BROKEN[trouble]
    for _ in range(3):
        await keys.refresh()
    issuer.clock.advance(1000)
    assert (await auth.verify_async(issuer.token())).subject == "alice"
    assert caplog.text.count("go on serving") == 1
    assert "c2VjcmV0" not in caplog.text


async def test_after_the_stated_time_without_keys_everybody_is_told_to_come_later(
    server: KeyServer, issuer: Issuer, source: Any
) -> None:
    keys = source(server, issuer, keep_for=1000, every=100)
    auth = issuer.auth(keys)
    await auth.verify_async(issuer.token())
    server.answers[KEYS] = failure()
    issuer.clock.advance(1001)
    with pytest.raises(AuthUnavailable, match="status 500"):
        await auth.verify_async(issuer.token())
    asked = len(server.asked)
    for _ in range(20):
        with pytest.raises(AuthUnavailable):
            await auth.verify_async(issuer.token())
    assert len(server.asked) == asked  # It is asked again when that is due, however many come.
    server.publish(jwk("ES256"))
    issuer.clock.advance(2)
    assert (await auth.verify_async(issuer.token())).subject == "alice"


async def test_an_unknown_key_while_the_server_is_away_is_not_called_a_bad_one(
    server: KeyServer, issuer: Issuer, source: Any
) -> None:
    """Its user may have a good token of a new key: he is to come back, not to sign in again."""
    auth = issuer.auth(source(server, issuer))
    await auth.verify_async(issuer.token())
    await server.kill()
    with pytest.raises(AuthUnavailable, match="cannot be reached"):
        await auth.verify_async(issuer.token("ES384"))
    assert (await auth.verify_async(issuer.token())).subject == "alice"


async def test_a_reading_takes_only_so_long(
    server: KeyServer, issuer: Issuer, source: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(refreshed, "TIMEOUT", 0.05)
    server.answers[KEYS] = server.held
    with pytest.raises(AuthUnavailable, match="took too long"):
        await issuer.auth(source(server, issuer)).verify_async(issuer.token())


async def test_it_is_read_in_the_background_ahead_of_its_age(server: KeyServer, issuer: Issuer, source: Any) -> None:
    keys = _on_real_time(source, server)
    keys.start(_nothing)
    await server.was_asked(1)
    server.publish(jwk("ES256"), jwk("ES384"))
    await server.was_asked(2)  # After 0.8 seconds at the most.
    await keys.stop(_nothing)


async def test_two_servers_share_one_reading_and_the_last_ends_it(
    server: KeyServer, issuer: Issuer, source: Any
) -> None:
    def other() -> None: ...

    keys = source(server, issuer)
    keys.start(_nothing)
    keys.start(other)
    await keys.ready()
    keeper = keys._keeper
    await keys.stop(_nothing)
    assert keeper is keys._keeper
    await keys.stop(other)
    assert keeper.cancelled()
    assert len(server.asked) == 1 + (source is discovery)
    keys.start(other)
    assert keys._keeper is not keeper
    await keys.stop(other)
    await keys.stop(other)


async def test_a_stop_during_a_reading_ends_it(server: KeyServer, issuer: Issuer, source: Any) -> None:
    server.answers[KEYS] = server.held
    keys = source(server, issuer)
    keys.start(_nothing)
    await server.was_asked()
    reading = keys._reading
    await keys.stop(_nothing)
    assert reading.cancelled()
    assert keys._reading is None


async def test_a_stop_before_the_reading_has_begun_leaves_nothing_behind(
    server: KeyServer, issuer: Issuer, source: Any
) -> None:
    keys = source(server, issuer)
    reading = asyncio.create_task(keys.refresh())
    await asyncio.sleep(0)
    await keys.stop(_nothing)
    await asyncio.gather(reading, return_exceptions=True)
    assert (await issuer.auth(keys).verify_async(issuer.token())).subject == "alice"


async def test_two_event_loops_of_one_process_share_a_reading(server: KeyServer, issuer: Issuer, source: Any) -> None:
    keys = source(server, issuer)
    auth, first = issuer.auth(keys), _first(source)
    answer, server.answers[first] = server.answers[first], server.held
    here = asyncio.create_task(auth.verify_async(issuer.token()))
    await server.was_asked(path=first)
    loop, begun = asyncio.get_running_loop(), asyncio.Event()

    async def asks() -> None:
        loop.call_soon_threadsafe(begun.set)
        await auth.verify_async(issuer.token())

    there = asyncio.create_task(asyncio.to_thread(background.run, asks(), WITHIN))
    await begun.wait()
    await asyncio.to_thread(background.run, asyncio.sleep(0), WITHIN)  # Its turn is over: it waits too.
    server.answers[first] = answer
    server.let_go()
    for refused in (here, there):
        with pytest.raises(AuthUnavailable):
            await refused
    assert server.count(first) == 1
    issuer.clock.advance(3600)
    await asyncio.gather(*(asyncio.to_thread(background.run, keys.refresh(), WITHIN) for _ in range(5)), keys.refresh())
    assert (await asyncio.to_thread(background.run, auth.verify_async(issuer.token()), WITHIN)).subject == "alice"
    assert server.count(first) == 2
    await asyncio.to_thread(background.run, auth.ready(), WITHIN)
    assert keys._loop is asyncio.get_running_loop()
    await keys.stop(_nothing)


async def test_a_server_is_told_of_a_change_on_its_own_event_loop(
    server: KeyServer, issuer: Issuer, source: Any
) -> None:
    keys = source(server, issuer)
    told: asyncio.Queue[threading.Thread] = asyncio.Queue()

    def changed() -> None:
        told.put_nowait(threading.current_thread())

    await asyncio.to_thread(background.run, keys.refresh(), WITHIN)
    keys.start(changed)
    assert keys._loop is background.loop()
    server.publish(jwk("ES384"))
    await keys.refresh()
    async with asyncio.timeout(WITHIN):
        assert await told.get() is threading.current_thread()
    await keys.stop(changed)
    await asyncio.to_thread(background.run, keys.stop(changed), WITHIN)


def test_keys_go_along_to_another_event_loop(source: Any) -> None:
    async def ask(auth: JWTAuth, token: str) -> None:
        assert (await auth.verify_async(token)).subject == "alice"
        await auth.ready()
        assert any("keep_fresh" in repr(task.get_coro()) for task in asyncio.all_tasks())

    async def first() -> tuple[JWTAuth, Issuer]:
        server = KeyServer(None)
        await server.start()
        server.publish(jwk("ES256"))
        issuer = Issuer(server.url)
        auth = issuer.auth(source(server, issuer))
        await ask(auth, issuer.token())
        await server.close()
        return auth, issuer

    async def second(auth: JWTAuth, issuer: Issuer) -> None:
        await ask(auth, issuer.token())
        with pytest.raises(AuthUnavailable):  # The server has gone; nothing of the first loop is waited for.
            await auth.verify_async(issuer.token("ES384"))

    async def third(auth: JWTAuth) -> None:
        await auth.stop(_nothing)  # Nothing was begun on this loop, and what ended with the others is left alone.

    auth, issuer = asyncio.run(first())
    asyncio.run(second(auth, issuer))
    asyncio.run(third(auth))


async def test_ready_waits_for_the_first_keys(server: KeyServer, issuer: Issuer, source: Any) -> None:
    answer = server.answers[KEYS]
    server.answers[KEYS] = server.stalled({"keys": [jwk("ES256")]})
    keys = source(server, issuer)
    ready = asyncio.create_task(keys.ready())
    await server.was_asked()
    assert not ready.done()
    server.answers[KEYS] = answer
    server.let_go()
    async with asyncio.timeout(WITHIN):
        await ready
    assert issuer.auth(keys).verify(issuer.token()).subject == "alice"


async def test_ready_gives_up_and_says_why(server: KeyServer, issuer: Issuer, source: Any) -> None:
    server.answers[KEYS] = failure(503)
    with pytest.raises(AuthUnavailable, match=r"after 0\.1 seconds: .* status 503 .*start_within=None"):
        await source(server, issuer, start_within=0.1).ready()


async def test_ready_does_not_wait_if_it_is_not_to(server: KeyServer, issuer: Issuer, source: Any) -> None:
    server.answers[KEYS] = failure(503)
    await source(server, issuer, start_within=None).ready()
    assert server.asked == []


async def test_changes_and_bad_keys_are_logged_once(
    server: KeyServer, issuer: Issuer, source: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "iogate")
    keys = source(server, issuer)
    server.publish(jwk("ES256"), jwk("ES384") | {"use": "enc"})
    await keys.refresh()
    await keys.refresh()
    assert [record.getMessage() for record in caplog.records if record.name == "iogate"] == [
        f"the keys of {keys}: the key 'ES384' is a JWK whose `use` is not 'sig': give the key that signs the tokens"
    ]
    server.publish(jwk("ES384"))
    await keys.refresh()
    assert "have changed: from <KeySet of ['ES256']> to <KeySet of ['ES384']>" in caplog.text


@pytest.mark.parametrize(
    "settings",
    [
        {"every": 0.5},
        {"every": "often"},
        {"every": 100000},
        {"keep_for": 10},
        {"cooldown": 0},
        {"start_within": 0},
        {"revoke_removed": 1},
        {"network": "everywhere"},
        {"ssl_context": True},
    ],
)
async def test_settings_that_are_not_sound_are_refused(
    server: KeyServer, issuer: Issuer, source: Any, settings: dict[str, Any]
) -> None:
    with pytest.raises(ConfigurationError, match=next(iter(settings))):
        source(server, issuer, **{"every": 300} | settings)


def _nothing() -> None: ...


def _first(source: Any) -> str:
    return CONFIGURATION if source is discovery else KEYS


def _on_real_time(source: Any, server: KeyServer) -> Refreshed:
    kind = type(source(server, Issuer(server.url)))
    address = server.jwks_url if kind is KeySetURL else server.url
    keys: Refreshed = kind(address, network="loopback", every=1)
    return keys
