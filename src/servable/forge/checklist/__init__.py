"""The way of a model to production in nine steps, and which of them a project has gone, by what lies in its folder."""
