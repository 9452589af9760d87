"""The doctor: from which token on a prompt was evaluated anew, and why."""
