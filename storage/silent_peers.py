"""How soon a connection to a host that has fallen silent is given up.

A host that loses power or its network closes nothing. By itself, Linux sends again for 15 minutes what such a host does not
acknowledge, and asks after two hours whether an idle connection still is one. Until then, threads wait for an answer that can't
come, and Postgres keeps the locks of a transaction that nobody can end.
"""

from __future__ import annotations

import socket

CONNECT_SECONDS = 10
IDLE_SECONDS = 10  #: after so long without traffic, the kernel asks whether the other side is there
INTERVAL_SECONDS = 5  #: time between two such questions
QUESTIONS = 3  #: how many may stay without an answer
UNACKNOWLEDGED_SECONDS = 20  #: how long sent bytes may stay unacknowledged
#: How long Postgres waits for the next statement of a transaction before it ends it. No code of ours waits for anything but the
#: database within a transaction.
IDLE_TRANSACTION_SECONDS = 15

#: For connections to Postgres: what libpq sets on this side. A parameter in DATABASE_URL goes before it.
LIBPQ = {
    "connect_timeout": CONNECT_SECONDS,
    "keepalives_idle": IDLE_SECONDS,
    "keepalives_interval": INTERVAL_SECONDS,
    "keepalives_count": QUESTIONS,
    "tcp_user_timeout": UNACKNOWLEDGED_SECONDS * 1000,
}

#: What Postgres sets on its side for the session. These are no parameters of the connection, because PgBouncer refuses those.
SESSION = {
    "tcp_keepalives_idle": IDLE_SECONDS,
    "tcp_keepalives_interval": INTERVAL_SECONDS,
    "tcp_keepalives_count": QUESTIONS,
    "tcp_user_timeout": UNACKNOWLEDGED_SECONDS * 1000,
    "idle_in_transaction_session_timeout": IDLE_TRANSACTION_SECONDS * 1000,
}


def tcp_options() -> dict[int, int]:
    """Option of IPPROTO_TCP → value, without those that this system does not have."""
    wanted = {
        "TCP_KEEPIDLE": IDLE_SECONDS,
        "TCP_KEEPINTVL": INTERVAL_SECONDS,
        "TCP_KEEPCNT": QUESTIONS,
        "TCP_USER_TIMEOUT": UNACKNOWLEDGED_SECONDS * 1000,
    }
    return {getattr(socket, name): value for name, value in wanted.items() if hasattr(socket, name)}
