"""What is checked of a model beside its speed: does it answer, alike each time, also to what is broken?"""
