"""A migration that fails when it is half done."""

import sqlalchemy as sa
from alembic import op

revision = "half"
down_revision = "posts"


def upgrade():
    op.create_table("half", sa.Column("id", sa.Integer, primary_key=True))
    raise RuntimeError("halfway, as asked")
