"""Order to the letter: timers by their time and then their submission; an actor's archived commands."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.drop_index("commands_timer_idx", "commands")
    scheduled = sa.text("status = 'scheduled'")
    op.create_index("commands_timer_idx", "commands", ["run_at", "seq"], postgresql_where=scheduled)
    op.create_index("archived_commands_actor_idx", "archived_commands", ["actor", "id"])
