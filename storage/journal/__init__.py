"""The journal: the table `commands`, which no other package writes.

                                        ┌────── claim ─────▶ succeeded | rejected | failed | expired
                                        │                                             │
    scheduled ───────── due ───────▶ accepted ◀─────────── redrive ───────────────────┘
        │                               │
        └────────────┬──────────────────┘
                     └───── cancel ────▶ cancelled

Which file writes it, and why:

| file           | transition                      | when                                                           |
|----------------|---------------------------------|----------------------------------------------------------------|
| accept.py      | → scheduled, → accepted         | a client submits a command                                     |
| changes.py     | → scheduled, → accepted         | a command writes another one, in its own transaction           |
| answer.py      | → accepted                      | the gateway's answer to a request becomes a command            |
| promote.py     | scheduled → accepted            | its time has come                                              |
| changes.py     | accepted → its outcome          | a batch has executed it, in the transaction of unit_of_work.py |
| cancel.py      | scheduled, accepted → cancelled | its sender takes it back                                       |
| redrive.py     | failed → accepted               | an operator runs it again                                      |
| erase.py       | none: its secrets go            | nothing waits for them any more                                |
| retire.py      | none: its key goes, then itself | it has been kept long enough                                   |
| repartition.py | none: its partition changes     | an operator changes the number of partitions                   |

The others write nothing: entry.py makes every entry, receipts.py reads what became of it, backlog.py counts what waits.
"""
