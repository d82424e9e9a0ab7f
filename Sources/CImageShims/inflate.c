#include "CImageShims.h"

#include <limits.h>
#include <string.h>

#include <zlib.h>

cis_status cis_inflate(uint8_t *target, size_t capacity, size_t *written, const uint8_t *data, size_t size) {
    *written = 0;
    if (capacity > UINT_MAX || size > UINT_MAX) return CIS_NO_MEMORY;
    z_stream stream;
    memset(&stream, 0, sizeof stream);
    if (inflateInit(&stream) != Z_OK) return CIS_NO_MEMORY;
    stream.next_in = (Bytef *)data;
    stream.avail_in = (uInt)size;
    stream.next_out = target;
    stream.avail_out = (uInt)capacity;
    const int result = inflate(&stream, Z_SYNC_FLUSH);
    *written = capacity - stream.avail_out;
    const int is_full = stream.avail_out == 0 && stream.avail_in > 0;
    inflateEnd(&stream);
    if (result == Z_STREAM_END) return CIS_OK;
    if (result != Z_OK && result != Z_BUF_ERROR) return CIS_DAMAGED;
    return is_full ? CIS_NO_MEMORY : CIS_OK;
}
