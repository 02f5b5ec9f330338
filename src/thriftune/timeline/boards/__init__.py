"""A timeline on boards that people work with: Asana and Trello, kept in step both ways."""
