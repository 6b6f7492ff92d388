"""Why something failed: an answer `{code, message, retryable}`, of the server or of our own, and the exceptions that carry it."""

from typing import Any

import socketio


class ConnectRefused(socketio.exceptions.ConnectionError):
    """No connection. `answer` is the server's `{code, message, retryable}`, `code` the answer's; `unavailable` where no server was reached
    in the time given."""

    def __init__(self, answer: dict):
        super().__init__(f"{answer.get('code')}: {answer.get('message')}")
        self.answer = answer
        self.code = answer["code"]


class RequestFailed(Exception):
    """`answer` is the error frame, `{code, message, retryable, …}`; `unavailable` where there was no answer in the time given."""

    def __init__(self, answer: dict):
        super().__init__(answer.get("message") or answer["code"])
        self.answer = answer
        self.code = answer["code"]


class PublishFailed(RequestFailed):
    """The message was not published; without an answer of the server it may be in the log all the same."""


class SubscribeFailed(RequestFailed):
    """With `unavailable` the subscription is still wanted, and begins with the connection; with any other code it has ended."""


def unavailable(message: str) -> dict:
    return {"type": "error", "code": "unavailable", "message": message, "retryable": True}


def bad_request(message: str) -> dict:
    return {"type": "error", "code": "bad_request", "message": message, "retryable": False}


def is_seq(value: Any) -> bool:
    return type(value) is int


def is_place(answer: dict) -> bool:
    return is_seq(answer.get("seq")) and isinstance(answer.get("epoch"), str)
