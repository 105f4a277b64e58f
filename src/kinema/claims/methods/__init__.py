"""One file a method: `CLAIM`, what its paper says and how it is measured again. `kinema claims` finds them here."""
