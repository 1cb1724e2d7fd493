"""Whether self-play is well: vitals of a round, and the record of its checkup."""
