"""A migration that fails when it is half done."""

import sqlalchemy as sa
from alembic import op

revision = "2half"
down_revision = "1"


def upgrade():
    op.create_table("half", sa.Column("id", sa.Integer, primary_key=True))
    raise RuntimeError("halfway, as asked")
