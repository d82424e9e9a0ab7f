// JPEG and PNG to and from 8-bit RGB in memory.
//
// libjpeg and libpng report errors with longjmp, which must not cross Swift frames. These functions keep the jump inside C and
// return a status with the library's own message. They hold no state and may be called from any thread.
#pragma once
#include <stddef.h>
#include <stdint.h>

// Bytes a caller provides for a message, terminating zero included.
#define CIS_MESSAGE_CAPACITY 256

typedef enum {
    CIS_OK = 0,
    CIS_DAMAGED = 1,    // the data break the format, or the size is not the one the caller expects
    CIS_TRUNCATED = 2,  // the data end before the picture does
    CIS_NO_MEMORY = 3,
} cis_status;

// rgb (height, width, 3): every byte is written when CIS_OK comes back. data: the whole file, `size` bytes.
// width, height: from the file's frame header; another size found while decoding is CIS_DAMAGED.
// Grayscale is repeated over the channels, CMYK and YCCK (stored inverted, as Adobe writes them) become RGB by multiplication with black.
// lenient: damage that libjpeg goes on from is no error, as for Pillow; a file that is cut off is one all the same.
cis_status cis_jpeg_decode(uint8_t *rgb, const uint8_t *data, size_t size, uint32_t width, uint32_t height, int lenient, char *message);

// rgb (height, width, 3). Palettes are looked up, 16-bit samples keep their high byte, alpha and transparency are dropped without blending.
// lenient: wrong CRCs, and whatever is wrong after the last row, are no errors, as for Pillow.
cis_status cis_png_decode(uint8_t *rgb, const uint8_t *data, size_t size, uint32_t width, uint32_t height, int lenient, char *message);

// *data, *size: the file, to be released with cis_free. quality 1...100, chroma halved both ways (4:2:0) as cameras do.
cis_status cis_jpeg_encode(uint8_t **data, size_t *size, const uint8_t *rgb, uint32_t width, uint32_t height, int quality, char *message);

// *data, *size: the file, to be released with cis_free. 8-bit RGB, not interlaced.
cis_status cis_png_encode(uint8_t **data, size_t *size, const uint8_t *rgb, uint32_t width, uint32_t height, char *message);

// target (capacity): the bytes of a zlib stream, *written of them; a truncated stream gives the bytes that it has.
// CIS_DAMAGED for a stream that breaks the format, CIS_NO_MEMORY for one of more bytes than the capacity.
cis_status cis_inflate(uint8_t *target, size_t capacity, size_t *written, const uint8_t *data, size_t size);

void cis_free(uint8_t *data);
