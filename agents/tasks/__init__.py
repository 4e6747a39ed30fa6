"""What a request means: its body to engine input, engine output to an answer's body."""
