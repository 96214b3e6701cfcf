"""HTTP service of a head: labels of images for other programs, and a page for people.

    connections -> application -> access, bodies -> batcher: lanes of threads -> the model

model         what is served: pixels of an image, answers of a batch
loading       the model of a run, of an exported file or of a name
limits        what a request may cost
access        hosts, origins and the token
bodies        the images in the body of a request, within the limits
batcher       waiting images, and the threads that answer them in batches
application   the paths and their handlers, as an ASGI application
replies       responses, and the refusal of a request
openapi       the description for other programs
metrics       counts for Prometheus, shared by processes
nearest       the training images next to an image
connections   HTTP by uvicorn: slow senders, and the end of the service
workers       one process, or several on one socket
"""
