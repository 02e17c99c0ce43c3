"""The processes that work in a home: the workers of `polar run`, and the servers of `polar ui`."""
