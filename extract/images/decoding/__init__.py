"""The parts of decoding: one decoder a module, and what all of them share.

pillow_formats  the formats that Pillow may open
jpeg            JPEG by libjpeg-turbo, strictly
plain_jpeg      headers of plain JPEGs, without Pillow
jpeg_holes      holes of zeros in them that it does not notice
heif            HEIC and HEIF, by pillow-heif
dicom           DICOM, by pydicom
tiff            TIFF with planes of 16 bits
levels          values of more than 8 bits as bytes
orientation     EXIF orientation: one reading for all
picture         a decoded image, converted by strips of rows
memory          the limit of pixels that are decoded at once
taps            some rows or columns of a resized image
resizing        the choice between them and the kernel of torch
revisions       which images other revisions of the rules read otherwise
"""
