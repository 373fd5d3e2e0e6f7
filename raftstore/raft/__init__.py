"""The consensus core: pure, synchronous, deterministic. It reads no clock, no disk, no network and no dice.

A shell owns one ``Node`` and does four things to it: ``tick`` it, ``step`` messages into it, ask things of it
(``propose``, ``propose_conf_change``, ``read_index``, ``transfer_leadership``), and carry out what ``ready`` says, in
the order that ``node.py`` begins with. The files import only from their left::

    types, errors ← quorum ← confchange ← message, progress, log, read ← core ← follower, candidate, leader ← node

Being born
    Every first member writes ``confchange.bootstrap(voters)`` to its log and starts from that; who joins later starts
    with nothing, and learns the membership from the log or a snapshot. Ids of members are never used twice.
Restarting
    ``Node(config, RaftLog.recover(applied, entries, hard_state.commit), hard_state, conf_state)`` where ``applied`` is
    index and term of what the machine holds and ``conf_state`` what was stored with it (None if nothing is applied).
    After a crash between the installation of a snapshot and the save, the first ``Ready.log_start`` says that the
    entries on disk are void.
What must be stored
    ``HardState``; entries with index, term, kind and data; the machine with index, term and ``ConfState``, atomically.
Sending
    ``Ready.messages`` and ``take_messages()`` at once, ``Ready.promises`` after the save. The transport may lose,
    delay, reorder and duplicate, except that it must not duplicate ``MsgProp``. What it knows to be lost goes to
    ``report_unreachable``. A forwarded ``MsgProp`` or ``MsgReadIndex`` keeps the id of who asked in ``sender``.
Snapshots
    ``Config.snapshot`` names one that the shell can send (at least up to what ``log.compact`` has dropped). On
    ``MsgSnap`` the shell streams its data to ``to`` and then says ``report_snapshot``; the receiving shell keeps the
    data and steps the message; ``Ready.snapshot`` says to install it, or nothing does, when the log was further.
Reads
    ``read_index(context)``; the read may be served once ``ReadState.index`` is applied. All reads that are asked for
    between two calls of ``ready`` or ``take_messages`` share one round of heartbeats.
Changes of members
    ``propose_conf_change(ConfChange((Change(ADD_LEARNER, id),), context=...))``; whoever applies the entry calls
    ``apply_conf_change`` and stores the returned ``ConfState`` with it. Several voters at once go through a joint
    configuration, which the leader leaves by itself (Transition.AUTO). ``progress[id].match`` tells how far one is.
Errors
    ``NoLeader``, ``ProposalDropped`` (a TooManyRequests), ``ConfChangeRefused`` and ``BadLeaderTransferee`` (both
    FailedPrecondition) are answers. ``InvariantBroken`` is a bug or a disk that lost what it had confirmed: stop.
"""
