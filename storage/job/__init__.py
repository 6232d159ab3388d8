"""A job in SQL, from accept to its end and after."""
