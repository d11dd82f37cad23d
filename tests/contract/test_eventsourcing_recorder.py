"""The `eventsourcing` library's own cases for recorders, run on our log, and a projection of the library on top."""

import gc
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from decimal import Decimal
from pathlib import Path
from tempfile import TemporaryDirectory
from uuid import UUID, uuid4

import pytest
from eventsourcing.application import Application
from eventsourcing.dispatch import singledispatchmethod
from eventsourcing.domain import Aggregate, DomainEvent, event
from eventsourcing.persistence import InfrastructureFactoryError, StoredEvent, Tracking
from eventsourcing.projection import Projection, ProjectionRunner
from eventsourcing.tests import persistence as cases
from eventsourcing.utils import Environment, get_topic

from domain.errors import StoreLocked
from store.eventsourcing_log import LogFactory
from store.log_writer import LogWriter, TaskEntry
from store.postgres import PostgresStore
from store.recorder import (
    LogAggregateRecorder,
    LogApplicationRecorder,
    LogProcessRecorder,
    LogTrackingRecorder,
)
from store.sql import SqlStore
from store.sqlite import SqliteStore

pytestmark = pytest.mark.evidence(
    target="recorder contract",
    answers=("R2.8", "G4"),
    given="our log behind the recorders of the `eventsourcing` library",
    when="the library's own cases are run",
    then="they pass",
    seen_in="state of the store",
)


class OnAFile:
    """Opens a store on a new file for a case of the library, which are unittest cases."""

    def setUp(self) -> None:
        folder = TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.path = str(Path(folder.name) / "log.db")

    def open(self) -> SqlStore:
        store = SqliteStore.open(self.path, "library")
        self.addCleanup(store.close_now)
        return store


@pytest.mark.usefixtures("a_database")
class OnADatabase(OnAFile):
    """The same on a database of its own."""

    @pytest.fixture
    def a_database(self, postgres_url: str) -> None:
        self.url = postgres_url

    def open(self) -> SqlStore:
        store = PostgresStore.open(self.url, "library")
        self.addCleanup(store.close_now)
        return store


class TestAggregateRecorder(OnAFile, cases.AggregateRecorderTestCase):
    def create_recorder(self) -> LogAggregateRecorder:
        return LogAggregateRecorder(self.open())


class TestSnapshotRecorder(OnAFile, cases.AggregateRecorderTestCase):
    def create_recorder(self) -> LogAggregateRecorder:
        self.env = Environment("", {LogFactory.STORE_PATH: self.path})
        factory = LogFactory(self.env)
        self.addCleanup(factory.close)
        return factory.aggregate_recorder("snapshots")


class TestApplicationRecorder(OnAFile, cases.ApplicationRecorderTestCase[LogApplicationRecorder]):
    def create_recorder(self) -> LogApplicationRecorder:
        return LogApplicationRecorder(self.open())

    def test_insert_subscribe(self) -> None:
        self.optional_test_insert_subscribe()


class TestTrackingRecorder(OnAFile, cases.TrackingRecorderTestCase):
    def create_recorder(self) -> LogTrackingRecorder:
        return LogTrackingRecorder(self.open())


class TestProcessRecorder(OnAFile, cases.ProcessRecorderTestCase):
    def create_recorder(self) -> LogProcessRecorder:
        return LogProcessRecorder(self.open())


class TestNonInterleaving(OnAFile, cases.NonInterleavingNotificationIDsBaseCase):
    def create_recorder(self) -> LogApplicationRecorder:
        return LogApplicationRecorder(self.open())


class TestAggregateRecorderOnPostgres(OnADatabase, TestAggregateRecorder):
    pass


class TestApplicationRecorderOnPostgres(OnADatabase, TestApplicationRecorder):
    pass


class TestTrackingRecorderOnPostgres(OnADatabase, TestTrackingRecorder):
    pass


class TestProcessRecorderOnPostgres(OnADatabase, TestProcessRecorder):
    pass


class TestNonInterleavingOnPostgres(OnADatabase, TestNonInterleaving):
    pass


class SpecialTrackingRecorder(LogTrackingRecorder):
    """A subclass, as the library's users make one for a view."""


class TestFactory(OnAFile, cases.InfrastructureFactoryTestCase[LogFactory]):
    def setUp(self) -> None:
        OnAFile.setUp(self)
        self.env = Environment("", {"PERSISTENCE_MODULE": LogFactory.__module__, LogFactory.STORE_PATH: self.path})
        cases.InfrastructureFactoryTestCase.setUp(self)

    def expected_factory_class(self) -> type[LogFactory]:
        return LogFactory

    def expected_aggregate_recorder_class(self) -> type[LogAggregateRecorder]:
        return LogAggregateRecorder

    def expected_application_recorder_class(self) -> type[LogApplicationRecorder]:
        return LogApplicationRecorder

    def expected_tracking_recorder_class(self) -> type[LogTrackingRecorder]:
        return LogTrackingRecorder

    def tracking_recorder_subclass(self) -> type[LogTrackingRecorder]:
        return SpecialTrackingRecorder

    def expected_process_recorder_class(self) -> type[LogProcessRecorder]:
        return LogProcessRecorder

    def test_needs_a_path(self) -> None:
        with pytest.raises(InfrastructureFactoryError, match="STORE_PATH"):
            LogFactory(Environment("", {}))

    def test_refuses_a_recorder_class_that_is_none_of_ours(self) -> None:
        self.env[LogFactory.PROCESS_RECORDER_TOPIC] = get_topic(LogTrackingRecorder)
        with pytest.raises(InfrastructureFactoryError, match="LogProcessRecorder"):
            self.factory.process_recorder()


class TestFactoryOnPostgres(OnADatabase, TestFactory):
    def setUp(self) -> None:
        OnADatabase.setUp(self)
        self.env = Environment("", {"PERSISTENCE_MODULE": LogFactory.__module__, LogFactory.STORE_URL: self.url})
        cases.InfrastructureFactoryTestCase.setUp(self)


def in_a_cycle(path: Path) -> LogFactory:
    """A factory that only the collector of cycles ends."""
    factory = LogFactory(Environment("", {LogFactory.STORE_PATH: str(path)}))
    factory.cycle = factory
    return factory


def test_a_forgotten_factory_may_be_collected_while_another_opens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forgotten, opened = in_a_cycle(tmp_path / "forgotten.db"), SqliteStore.open

    def collect_and_open(*arguments, **named) -> SqliteStore:
        gc.collect()
        return opened(*arguments, **named)

    monkeypatch.setattr(SqliteStore, "open", collect_and_open)
    del forgotten
    opening = threading.Thread(target=lambda: in_a_cycle(tmp_path / "log.db").close(), daemon=True)
    opening.start()
    opening.join(5)
    assert not opening.is_alive(), "the collector waits for what its own thread holds"
    until_all_are_let_go_of()


def test_a_forgotten_factory_keeps_the_file_until_its_journal_has_ended(tmp_path: Path) -> None:
    forgotten = in_a_cycle(tmp_path / "log.db")
    journal, collected = forgotten.store.journal, Future()

    def collect_and_open_again(_: LogWriter) -> None:
        gc.collect()
        SqliteStore.open(tmp_path / "log.db", "second").close_now()

    del forgotten
    journal.submit(TaskEntry(collect_and_open_again, collected))
    with pytest.raises(StoreLocked):
        collected.result(5)
    until_all_are_let_go_of()
    SqliteStore.open(tmp_path / "log.db", "second").close_now()


def until_all_are_let_go_of() -> None:
    """The store of a forgotten factory is closed in a thread of its own, under the lock of the registry."""
    for _ in range(500):
        with LogFactory._sharing:
            if not LogFactory._shared:
                return
        threading.Event().wait(0.01)
    raise AssertionError("a store was left open")


class Account(Aggregate):
    """The smallest aggregate that says something."""

    def __init__(self) -> None:
        self.balance = Decimal(0)

    @event("Deposited")
    def deposit(self, amount: Decimal) -> None:
        self.balance += amount


class Bank(Application[UUID]):
    """An application of the library."""

    is_snapshotting_enabled = True

    def open_account(self) -> UUID:
        account = Account()
        self.save(account)
        return account.id

    def deposit(self, account_id: UUID, amount: Decimal) -> int:
        account = self.repository.get(account_id)
        account.deposit(amount)
        return self.save(account)[-1].notification.id


class Balances(LogTrackingRecorder):
    """A view: what it counts in memory, its checkpoint in the log's file."""

    def __init__(self, store: SqliteStore) -> None:
        super().__init__(store)
        self.total = Decimal(0)

    def add(self, amount: Decimal, tracking: Tracking) -> None:
        self.insert_tracking(tracking)
        self.total += amount


class Totals(Projection[Balances]):
    name = "totals"
    topics = (get_topic(Account.Deposited),)

    @singledispatchmethod
    def process_event(self, _: DomainEvent, tracking: Tracking) -> None:
        self.view.insert_tracking(tracking)

    @process_event.register
    def deposited(self, happened: Account.Deposited, tracking: Tracking) -> None:
        self.view.add(happened.amount, tracking)


@pytest.fixture
def env(tmp_path: Path) -> Iterator[dict[str, str]]:
    yield {"PERSISTENCE_MODULE": LogFactory.__module__, LogFactory.STORE_PATH: str(tmp_path / "log.db")}
    assert not LogFactory._shared, "a store was left open"


def test_a_projection_runner_of_the_library_follows_the_log(env: dict[str, str]) -> None:
    with ProjectionRunner(application_class=Bank, projection_class=Totals, view_class=Balances, env=env) as runner:
        account_id = runner.app.open_account()
        for amount in range(1, 11):
            position = runner.app.deposit(account_id, Decimal(amount))
        runner.wait(position, timeout=5)
        assert runner.view.total == 55
        assert runner.app.repository.get(account_id).balance == 55
    runner.view.origin.close()  # the library's runner forgets the factory of its view


def test_snapshots_stay_out_of_the_log(env: dict[str, str]) -> None:
    with Bank(env | {"IS_SNAPSHOTTING_ENABLED": "yes"}) as bank:
        account_id = bank.open_account()
        bank.deposit(account_id, Decimal(3))
        bank.take_snapshot(account_id)
        assert bank.recorder.max_notification_id() == 2
        assert bank.repository.get(account_id).balance == 3
        assert len(list(bank.snapshots.get(account_id))) == 1


def test_a_read_only_recorder_follows_what_another_process_writes(env: dict[str, str]) -> None:
    """Two stores on one file, as two processes have them; nothing wakes the reader but its own polling."""
    writing, reading = LogFactory(env), LogFactory(env | {LogFactory.STORE_READ_ONLY: "yes"})
    recorder, follower = writing.application_recorder(), reading.application_recorder()
    stream_id = uuid4()
    with follower.subscribe() as subscription:
        recorder.insert_events([StoredEvent(stream_id, 1, "opened", b"{}")])
        assert next(subscription).originator_id == stream_id
        recorder.insert_events([StoredEvent(stream_id, 2, "closed", b"{}")])
        assert next(subscription).topic == "closed"
    reading.close()
    writing.close()
