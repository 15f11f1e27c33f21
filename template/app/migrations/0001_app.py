"""Begin the app's own branch, separate from the base's."""

revision = "app0001"
down_revision = None
branch_labels = ("app",)
depends_on = "bulwark0001"


def upgrade() -> None:
    """Change nothing: your migrations follow."""


def downgrade() -> None:
    """Change nothing."""
