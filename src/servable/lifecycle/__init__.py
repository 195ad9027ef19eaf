"""WHICH VERSIONS ARE LOADED: a source wishes, a pure policy decides one action, a manager acts."""
