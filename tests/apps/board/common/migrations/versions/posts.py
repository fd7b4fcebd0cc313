"""The table of posts."""

import sqlalchemy as sa
from alembic import op

revision = "posts"
down_revision = None


def upgrade():
    op.create_table(
        "post", sa.Column("id", sa.Integer, primary_key=True), sa.Column("body", sa.String(140), nullable=False)
    )
