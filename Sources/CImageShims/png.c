#include "CImageShims.h"

#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <png.h>

typedef struct {
    jmp_buf jump;
    char *message;
    cis_status status;
    const uint8_t *input;
    size_t input_size, position;
    uint8_t *output;
    size_t output_size, output_capacity;
    uint64_t rows_decoded, rows;
    int lenient;
} png_job;

static void fail(png_structp png, png_const_charp text) {
    png_job *job = png_get_error_ptr(png);
    if (job->status == CIS_OK) job->status = CIS_DAMAGED;
    snprintf(job->message, CIS_MESSAGE_CAPACITY, "%s", text);
    longjmp(job->jump, 1);
}

static void ignore_warning(png_structp png, png_const_charp text) {
    (void)png;
    (void)text;
}

static void read_bytes(png_structp png, png_bytep target, size_t count) {
    png_job *job = png_get_io_ptr(png);
    if (count > job->input_size - job->position) {
        job->status = CIS_TRUNCATED;
        png_error(png, "the file ends before its last chunk");
    }
    memcpy(target, job->input + job->position, count);
    job->position += count;
    // The length of a truncated chunk of pixels becomes that of its existing bytes, because libpng reads a chunk whole before it decodes any.
    if (job->lenient && count == 8 && memcmp(target + 4, "IDAT", 4) == 0) {
        const size_t left = job->input_size - job->position;
        const size_t length = (size_t)target[0] << 24 | (size_t)target[1] << 16 | (size_t)target[2] << 8 | target[3];
        for (int byte = 0; left < length && byte < 4; byte++) target[byte] = (uint8_t)(left >> (24 - 8 * byte));
    }
}

static void write_bytes(png_structp png, png_bytep source, size_t count) {
    png_job *job = png_get_io_ptr(png);
    if (count > job->output_capacity - job->output_size) {
        size_t capacity = job->output_capacity * 2 + count + 4096;
        uint8_t *grown = realloc(job->output, capacity);
        if (grown == NULL) {
            job->status = CIS_NO_MEMORY;
            png_error(png, "out of memory");
        }
        job->output = grown;
        job->output_capacity = capacity;
    }
    memcpy(job->output + job->output_size, source, count);
    job->output_size += count;
}

// libpng calls it for each row that it has decoded, right before it is copied to where it goes.
static void count_row(png_structp png, png_row_infop row, png_bytep data) {
    (void)row;
    (void)data;
    ((png_job *)png_get_io_ptr(png))->rows_decoded++;
}

// Rows as they are stored: of an interlaced picture those of all passes that are not empty.
static uint64_t stored_rows(uint32_t width, uint32_t height, int passes) {
    if (passes == 1) return height;
    uint64_t rows = 0;
    for (int pass = 0; pass < passes; pass++) {
        if (PNG_PASS_COLS(width, pass) > 0) rows += PNG_PASS_ROWS(height, pass);
    }
    return rows;
}

static void flush_nothing(png_structp png) { (void)png; }

// The libpng objects of one call. They are not locals of the function that calls setjmp, because a jump leaves those undefined.
typedef struct {
    png_job job;
    png_structp png;
    png_infop info;
} png_session;

static cis_status decode(png_session *session, uint8_t *rgb, uint32_t width, uint32_t height) {
    png_job *job = &session->job;
    // A lenient reader ignores errors after the pixels.
    if (setjmp(job->jump)) return job->lenient && job->rows > 0 && job->rows_decoded == job->rows ? CIS_OK : job->status;
    png_structp png = session->png;
    png_infop info = session->info;
    // Ancillary chunks (profiles, texts) are not needed and can unpack to any size; tRNS is kept by libpng all the same.
    png_set_keep_unknown_chunks(png, PNG_HANDLE_CHUNK_NEVER, NULL, -1);
    png_set_user_limits(png, width, height);
    png_set_read_fn(png, job, read_bytes);
    if (job->lenient) png_set_crc_action(png, PNG_CRC_QUIET_USE, PNG_CRC_QUIET_USE);
    png_read_info(png, info);
    if (png_get_image_width(png, info) != width || png_get_image_height(png, info) != height) png_error(png, "unexpected size");
    png_set_expand(png);
    png_set_strip_16(png);
    png_set_gray_to_rgb(png);
    png_set_strip_alpha(png);
    png_set_read_user_transform_fn(png, count_row);
    const int passes = png_set_interlace_handling(png);
    png_read_update_info(png, info);
    job->rows = stored_rows(width, height, passes);
    const size_t row_bytes = (size_t)width * 3;
    if (png_get_rowbytes(png, info) != row_bytes) png_error(png, "unexpected pixel layout");
    for (int pass = 0; pass < passes; pass++) {
        for (uint32_t y = 0; y < height; y++) png_read_row(png, rgb + y * row_bytes, NULL);
    }
    if (!job->lenient) png_read_end(png, NULL);
    return CIS_OK;
}

cis_status cis_png_decode(uint8_t *rgb, const uint8_t *data, size_t size, uint32_t width, uint32_t height, int lenient, char *message) {
    png_session session;
    memset(&session, 0, sizeof session);
    message[0] = 0;
    session.job.message = message;
    session.job.input = data;
    session.job.input_size = size;
    session.job.lenient = lenient;
    session.png = png_create_read_struct(PNG_LIBPNG_VER_STRING, &session.job, fail, ignore_warning);
    if (session.png == NULL) return CIS_NO_MEMORY;
    session.info = png_create_info_struct(session.png);
    cis_status status = session.info == NULL ? CIS_NO_MEMORY : decode(&session, rgb, width, height);
    png_destroy_read_struct(&session.png, &session.info, NULL);
    return status;
}

static cis_status encode(png_session *session, const uint8_t *rgb, uint32_t width, uint32_t height) {
    png_job *job = &session->job;
    if (setjmp(job->jump)) return job->status;
    png_structp png = session->png;
    png_set_write_fn(png, job, write_bytes, flush_nothing);
    png_set_IHDR(png, session->info, width, height, 8, PNG_COLOR_TYPE_RGB, PNG_INTERLACE_NONE, PNG_COMPRESSION_TYPE_DEFAULT,
                 PNG_FILTER_TYPE_DEFAULT);
    png_write_info(png, session->info);
    for (uint32_t y = 0; y < height; y++) png_write_row(png, rgb + (size_t)y * width * 3);
    png_write_end(png, NULL);
    return CIS_OK;
}

cis_status cis_png_encode(uint8_t **data, size_t *size, const uint8_t *rgb, uint32_t width, uint32_t height, char *message) {
    png_session session;
    memset(&session, 0, sizeof session);
    *data = NULL;
    *size = 0;
    message[0] = 0;
    session.job.message = message;
    session.png = png_create_write_struct(PNG_LIBPNG_VER_STRING, &session.job, fail, ignore_warning);
    if (session.png == NULL) return CIS_NO_MEMORY;
    session.info = png_create_info_struct(session.png);
    cis_status status = session.info == NULL ? CIS_NO_MEMORY : encode(&session, rgb, width, height);
    png_destroy_write_struct(&session.png, &session.info);
    if (status == CIS_OK) {
        *data = session.job.output;
        *size = session.job.output_size;
    } else {
        free(session.job.output);
    }
    return status;
}
