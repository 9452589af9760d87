"""Many engines on one machine: which may run, which must stop, which request waits for what.

Everything in this package that *decides* is pure: no loop, clock, file or socket; `now` is always given. A supervisor
around it owns the processes, carries out the effects that are named here, and reports back what happened.

How it fits together
--------------------
`fleet.py`      all models of a configuration (`plan.py` says what of); `only.py`: the unit of an engine without any
`claim.py`      a request's claim on a model, from asking for it until the last byte
`names.py`      what a name in a request means: a model or a peer's, through alias, profile, selector, template
`selectors.py`  which of a selector's targets takes a request now
`state.py`      the states of one process and every step between them, as one table
`rules.py`      what a rule is: "these run; which must stop so that this one may?"; the two that there are:
                `groups.py` and `matrix.py`; `expression.py` reads the matrix's language
`schedule.py`   requests, loads and unloads in; effects out. `round.py` is one look at all that wait; `book.py` has all
                that is known, `wish.py` and `effects.py` are values, `waits.py` names what a wait is for
`supervisor.py` carries the effects out; `life.py` has one task for each process, which `unit.py` starts and stops
`command.py`    the words that a `cmd` becomes; `containers.py` knows the container that it runs, and removes a leftover
`orphans.py`    processes that an earlier run left; `retired.py`: what a reload took out, until its process has ended

The contract of the schedule
----------------------------
Each method takes what happened and `now`, and returns effects in the order in which they are to be carried out. They
are facts by then: the schedule has already counted them. The supervisor reports exactly two things of each process,
with the number of its life: `ready` (healthy, and its KV cache restored) and `ended` (no process of that life is left,
whatever the reason). Between calls one timer calls `tick` at `wake`. So a report that is late, doubled or belongs to
an earlier life changes nothing, and a wake-up cannot be lost between two tasks: there is only one place where anything
is decided, and it looks at all models each time.

What is promised to those who wait
----------------------------------
*Collation*: when a model becomes ready, all who wait for it are served, whatever came in between: swaps are few.
*No starvation*: a request that has waited for `max_wait` is overdue. Overdue requests go first, in order of arrival,
and what they must displace serves no newcomers any more: it finishes what it has, and goes.
*No ping-pong*: a model that takes turns with another stays for `min_resident` (the time that its load took), and one
whose answer ended in tool calls for `linger`, because the next request of that conversation is certain. Both end as
soon as a request is overdue. So of an agent and a voice assistant on two models of one group, the agent loses its
place at most once per `max_wait`.
*No needless work*: a load that no request waits for any more gives way. While a start fails, requests are told at once.

What is running is never displaced by a request for another running model: memory that both have is no reason to stop
one. (llama-swap stops a model of a non-exclusive group when an exclusive one that runs beside it gets a request.)
"""
