"""A Kafka topic, read by a consumer group. Offsets are committed when every output of the batch is confirmed."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from typing import Any

from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka import Message as Sent

from homeostat.adapters.address import Address
from homeostat.domain.errors import HomeostatError, Unavailable, UsageError
from homeostat.domain.message import Message, Output, Standing

_REACH_S = 5.0
_CONFIRM_S = 1.0
_LEAVE_S, _LEAVE_STEP_S = 10.0, 0.1
_LATER = frozenset(
    {
        KafkaError._ALL_BROKERS_DOWN,
        KafkaError._MSG_TIMED_OUT,
        KafkaError._PURGE_INFLIGHT,
        KafkaError._PURGE_QUEUE,
        KafkaError._RESOLVE,
        KafkaError._TIMED_OUT,
        KafkaError._TIMED_OUT_QUEUE,
        KafkaError._TRANSPORT,
        KafkaError._WAIT_COORD,
        KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
        KafkaError.COORDINATOR_NOT_AVAILABLE,
        KafkaError.NOT_COORDINATOR,
        KafkaError.REQUEST_TIMED_OUT,
        KafkaError.UNKNOWN_TOPIC_OR_PART,
    }
)
"""Errors that may pass, beside those that say so themselves."""
_MEANWHILE = frozenset(
    {
        KafkaError._ASSIGNMENT_LOST,
        KafkaError._NO_OFFSET,
        KafkaError._STATE,
        KafkaError.ILLEGAL_GENERATION,
        KafkaError.REBALANCE_IN_PROGRESS,
        KafkaError.UNKNOWN_MEMBER_ID,
    }
)
"""Errors of a commit in the middle of a rebalance: afterwards the partition is still ours, and the commit goes through,
or it is another's, to whom the messages are delivered again."""
_TROUBLES = frozenset({KafkaError._ALL_BROKERS_DOWN, KafkaError._AUTHENTICATION, KafkaError._RESOLVE, KafkaError._SSL})
"""What is said between calls and matters."""
_TAKING = {"auto.offset.reset": "earliest", "partition.assignment.strategy": "cooperative-sticky"}
_SENDING = {"linger.ms": 5}
_log = logging.getLogger("homeostat.kafka")


class KafkaStream:
    """`ports.Stream`. A message's place is topic-partition-offset; an output's key is its id. The settings of an
    address are librdkafka's."""

    def __init__(self, source: Address, sink: Address, dead: Address, group: str) -> None:
        """A group that is new starts at the oldest message. Errors: `UsageError`; `Unavailable`."""
        self._source, self._sink, self._dead = source.topic, sink.topic, dead.topic
        self._where = f"{source} to {sink}"
        self._trouble = ""
        self._sending: Sequence[Output] | None = None
        self._failed: list[tuple[KafkaError, Sent]] = []
        self._early: list[Sent] = []
        self._resting = False
        self._rebalances = 0
        self._mine: set[int] = set()
        self._due: dict[int, int] = {}
        taking = {"group.id": group, "enable.auto.commit": False}
        sending = {
            "enable.idempotence": True,
            "delivery.report.only.error": True,  # `flush` says that the others have come
            "on_delivery": self._reported,
        }
        try:
            self._producer = Producer(self._settings(sink, _SENDING, sending))
            self._consumer = Consumer(self._settings(source, _TAKING, taking))
            self._producer.list_topics(timeout=_REACH_S)
        except KafkaException as error:
            raise self._told(error.args[0]) from None
        self._consumer.subscribe([source.topic], self._assigned, self._revoked, self._lost)

    def take(self, limit: int, wait_s: float) -> Sequence[Message]:
        """Nothing new while the group won't let through what is done: at most one batch is ever repeated for that."""
        self._commit()
        if self._due:
            self.rest(wait_s)
            return ()
        self._resume()
        early, self._early = self._early, []
        first = None if early else self._consumer.poll(wait_s)
        given = early if first is None else [first, *self._consumer.consume(limit - 1, 0)]
        errors = [error for error in (one.error() for one in given) if error is not None]
        if len(errors) == len(given):
            self._complain(errors)
        return [_message(one) for one in given if one.error() is None]

    def settle(self, taken: Sequence[Message], outputs: Sequence[Output]) -> None:
        """Called again for the same outputs, it sends only what failed."""
        if self._sending is not outputs:
            self._sending = outputs
            topics = (self._sink, self._dead)
            for one in outputs:
                self._produce(topics[one.dead], one.id, one.body)
        self._confirm()
        done = {partition: offset + 1 for partition, offset in (one.mark for one in taken)}  # they come in order
        self._due |= {partition: offset for partition, offset in done.items() if partition in self._mine}
        self._commit()
        self._sending = None

    def rest(self, wait_s: float) -> None:
        """A consumer that does not poll is thought dead after a while: this one polls, with its partitions paused."""
        self._resting = True
        self._consumer.pause(self._consumer.assignment())
        one = self._consumer.poll(wait_s)
        if one is not None:  # of a partition that came meanwhile
            self._early.append(one)

    def standing(self) -> Standing:
        try:
            ahead = [self._ahead(one) for one in self._consumer.position(self._consumer.assignment())]
        except KafkaException as error:
            raise Unavailable(f"Kafka says: {error.args[0].str()}", where=self._where) from None
        known = [count for count in ahead if count is not None]
        told = 0 < len(known) == len(ahead)
        return Standing(sum(known) if told else None, self._rebalances)

    def close(self) -> None:
        """A rebalance under way is waited for, up to `_LEAVE_S`, so that what is done is committed."""
        try:
            end = time.monotonic() + _LEAVE_S
            self._commit()
            while self._due and time.monotonic() < end:
                self.rest(_LEAVE_STEP_S)
                self._commit()
        finally:
            self._consumer.close()
            self._producer.flush(_CONFIRM_S)

    # Sending

    def _produce(self, topic: str, key: str | bytes, body: bytes) -> None:
        try:
            self._producer.produce(topic, body, key)
        except KafkaException as error:
            raise self._told(error.args[0]) from None

    def _reported(self, error: KafkaError | None, sent: Sent) -> None:
        if error is not None:
            self._failed.append((error, sent))

    def _confirm(self) -> None:
        """Errors: `Unavailable` unless every output is confirmed; what failed is sent again then."""
        left = self._producer.flush(_CONFIRM_S)
        failed, self._failed = self._failed, []
        for _, sent in failed:
            self._produce(sent.topic() or "", sent.key() or b"", sent.value() or b"")
        if failed:
            raise self._told(failed[0][0])
        if left:
            raise Unavailable(f"{left:,} outputs are not confirmed yet", where=self._where)

    def _commit(self) -> None:
        """What the group does not let through while it shares out its partitions is committed at the next call."""
        offsets = [TopicPartition(self._source, one, offset) for one, offset in self._due.items()]
        try:
            done = self._consumer.commit(offsets=offsets, asynchronous=False) if offsets else []
        except KafkaException as failure:
            self._late(failure.args[0])
            return
        for one in done:
            if one.error is None:
                del self._due[one.partition]
            else:
                self._late(one.error)

    def _late(self, error: KafkaError) -> None:
        if error.code() not in _MEANWHILE:
            raise self._told(error)
        _log.debug("not committed yet: %s", error.str())

    # Taking

    def _resume(self) -> None:
        if self._resting:
            self._resting = False
            self._consumer.resume(self._consumer.assignment())

    def _assigned(self, _: Consumer, partitions: Sequence[TopicPartition]) -> None:
        self._mine |= {one.partition for one in partitions}
        self._rebalances += bool(partitions)

    def _revoked(self, consumer: Consumer, partitions: Sequence[TopicPartition]) -> None:
        """Called within a poll, between two batches: all that was taken is settled, and is committed now or never."""
        try:
            self._commit()
        except HomeostatError as error:
            _log.warning("not committed before others took over, who will see messages again: %s", error.what)
        self._lost(consumer, partitions)

    def _lost(self, _: Consumer, partitions: Sequence[TopicPartition]) -> None:
        for one in partitions:
            self._mine.discard(one.partition)
            self._due.pop(one.partition, None)
        self._rebalances += bool(partitions)

    def _ahead(self, at: TopicPartition) -> int | None:
        """How many messages of a partition are before its position; None before the first was taken."""
        _, high = self._consumer.get_watermark_offsets(at, cached=True)
        return high - at.offset if high >= 0 and at.offset >= 0 else None

    # Troubles

    def _settings(self, address: Address, usual: dict[str, Any], fixed: dict[str, Any]) -> dict[str, Any]:
        """`fixed` are those that our promises rest on."""
        ours = {**fixed, "bootstrap.servers": address.hosts, "error_cb": self._heard, "logger": _log}
        taken = sorted(ours.keys() & address.settings.keys())
        if taken:
            raise UsageError(f"{', '.join(taken)} can't be set here", where=str(address))
        login = {"sasl.username": address.user, "sasl.password": address.password} if address.user else {}
        return {**usual, **login, **address.settings, **ours}

    def _heard(self, error: KafkaError) -> None:
        """That one broker of several is away is no trouble."""
        if error.code() in _TROUBLES:
            self._trouble = error.str()

    def _complain(self, errors: Sequence[KafkaError]) -> None:
        """Errors: as `_told`, for the first error of a poll that brought nothing, or for what was heard since."""
        trouble, self._trouble = self._trouble, ""
        if errors:
            raise self._told(errors[0])
        if trouble:
            raise Unavailable(trouble, where=self._where)

    def _told(self, error: KafkaError) -> HomeostatError:
        later = not error.fatal() and (error.retriable() or error.code() in _LATER)
        kind = Unavailable if later else UsageError if error.code() == KafkaError._INVALID_ARG else HomeostatError
        return kind(f"Kafka says: {error.str()}", where=self._where)


def _message(one: Sent) -> Message:
    partition, offset = one.partition() or 0, one.offset() or 0
    return Message(f"{one.topic()}-{partition}-{offset}", one.value() or b"", (partition, offset))
