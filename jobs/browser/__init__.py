"""What `jobs.browse` serves: columns of a round in memory, and the pages made of them."""
