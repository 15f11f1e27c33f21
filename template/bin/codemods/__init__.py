"""What `bin/codemod` consists of: `moves` is the table, the other modules apply it."""
