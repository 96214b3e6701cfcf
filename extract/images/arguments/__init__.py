"""Images as a command line names them, any number of arguments at once.

any_layout      the images of all arguments, without regard to layouts and labels
patterns        files and folders by a pattern such as 'photos/**/*.jpg'
standard_input  paths, or one image, from another program
"""
