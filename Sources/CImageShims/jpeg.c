#include "CImageShims.h"

#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jpeglib.h>
#include <jerror.h>

// The error manager for libjpeg; `base` comes first so that a pointer to it is a pointer to this.
typedef struct {
    struct jpeg_error_mgr base;
    jmp_buf jump;
    char *message;
    cis_status status;
    int reached_end;  // the source ran dry and libjpeg went on with an end marker of its own making
    int lenient;
} jpeg_errors;

static void fail(j_common_ptr info) {
    jpeg_errors *errors = (jpeg_errors *)info->err;
    char text[JMSG_LENGTH_MAX];
    errors->base.format_message(info, text);
    snprintf(errors->message, CIS_MESSAGE_CAPACITY, "%s", text);
    errors->status = errors->base.msg_code == JERR_OUT_OF_MEMORY ? CIS_NO_MEMORY
        : errors->reached_end                                    ? CIS_TRUNCATED
                                                                 : CIS_DAMAGED;
    longjmp(errors->jump, 1);
}

// libjpeg fills missing pixels with grey and only warns. Warnings that mean missing or wrong pixels are errors here; the others
// (stray bytes between markers, an unusual version number) change no pixel and appear in files that cameras write. A lenient reader accepts
// libjpeg's pixels of damaged data, but not of truncated data.
static void on_message(j_common_ptr info, int level) {
    jpeg_errors *errors = (jpeg_errors *)info->err;
    if (level >= 0) return;
    switch (errors->base.msg_code) {
        case JWRN_JPEG_EOF:
            errors->reached_end = 1;
            return;
        case JWRN_HIT_MARKER:
        case JWRN_HUFF_BAD_CODE:
        case JWRN_MUST_RESYNC:
        case JWRN_ARITH_BAD_CODE:
            if (!errors->lenient || errors->reached_end) fail(info);
            return;
        default:
            return;
    }
}

static void discard(j_common_ptr info) { (void)info; }

static struct jpeg_error_mgr *install(jpeg_errors *errors, char *message) {
    struct jpeg_error_mgr *base = jpeg_std_error(&errors->base);
    base->error_exit = fail;
    base->emit_message = on_message;
    base->output_message = discard;
    errors->message = message;
    errors->status = CIS_OK;
    errors->reached_end = 0;
    errors->lenient = 0;
    message[0] = 0;
    return base;
}

// A scan costs a pass over all coefficients, and a few bytes are enough to ask for one: as many are read as pass over so many pixels.
static const int smallest_scan_limit = 20, largest_scan_limit = 500;
static const double largest_scanned_pixels = 4e9;

typedef struct {
    struct jpeg_progress_mgr base;
    jpeg_errors *errors;
    int largest_count;
} scan_counter;

static void count_scans(j_common_ptr info) {
    scan_counter *counter = (scan_counter *)info->progress;
    if (!info->is_decompressor || ((j_decompress_ptr)info)->input_scan_number <= counter->largest_count) return;
    snprintf(counter->errors->message, CIS_MESSAGE_CAPACITY, "more than %d scans, the most for its size", counter->largest_count);
    counter->errors->status = CIS_DAMAGED;
    longjmp(counter->errors->jump, 1);
}

// a * b / 255, rounded, for bytes.
static inline uint8_t scaled(unsigned a, unsigned b) {
    unsigned product = a * b + 128;
    return (uint8_t)((product + (product >> 8)) >> 8);
}

static void rgb_from_inverted_cmyk(uint8_t *rgb, const uint8_t *cmyk, uint32_t width) {
    for (uint32_t x = 0; x < width; x++, rgb += 3, cmyk += 4) {
        unsigned light = cmyk[3];
        for (int channel = 0; channel < 3; channel++) rgb[channel] = (uint8_t)(light - scaled(255u - cmyk[channel], light));
    }
}

cis_status cis_jpeg_decode(uint8_t *rgb, const uint8_t *data, size_t size, uint32_t width, uint32_t height, int lenient, char *message) {
    struct jpeg_decompress_struct info;
    memset(&info, 0, sizeof info);
    jpeg_errors errors;
    scan_counter counter;
    uint8_t *volatile cmyk = NULL;
    info.err = install(&errors, message);
    errors.lenient = lenient;
    if (setjmp(errors.jump)) {
        free(cmyk);
        jpeg_destroy_decompress(&info);
        return errors.status;
    }
    jpeg_create_decompress(&info);
    memset(&counter, 0, sizeof counter);
    counter.base.progress_monitor = count_scans;
    counter.errors = &errors;
    const double affordable = largest_scanned_pixels / ((double)width * height);
    counter.largest_count = affordable < smallest_scan_limit ? smallest_scan_limit
        : affordable > largest_scan_limit                    ? largest_scan_limit
                                                             : (int)affordable;
    info.progress = &counter.base;
    jpeg_mem_src(&info, (unsigned char *)data, (unsigned long)size);
    jpeg_read_header(&info, TRUE);
    const int has_four_channels = info.jpeg_color_space == JCS_CMYK || info.jpeg_color_space == JCS_YCCK;
    info.out_color_space = has_four_channels ? JCS_CMYK : JCS_RGB;
    jpeg_start_decompress(&info);
    if (info.output_width != width || info.output_height != height || info.output_components != (has_four_channels ? 4 : 3)) {
        snprintf(message, CIS_MESSAGE_CAPACITY, "expected %u x %u pixels, found %u x %u with %d channels", width, height,
                 info.output_width, info.output_height, info.output_components);
        jpeg_destroy_decompress(&info);
        return CIS_DAMAGED;
    }
    if (has_four_channels) {
        cmyk = malloc((size_t)width * 4);
        if (cmyk == NULL) {
            jpeg_destroy_decompress(&info);
            return CIS_NO_MEMORY;
        }
    }
    while (info.output_scanline < info.output_height) {
        uint8_t *row = rgb + (size_t)info.output_scanline * width * 3;
        JSAMPROW target = has_four_channels ? cmyk : row;
        if (jpeg_read_scanlines(&info, &target, 1) == 1 && has_four_channels) rgb_from_inverted_cmyk(row, cmyk, width);
    }
    // A picture sent in one scan is whole once its last row is out, even without an end marker. One sent in several is not.
    const int is_cut = errors.reached_end && jpeg_has_multiple_scans(&info);
    free(cmyk);
    jpeg_destroy_decompress(&info);
    if (is_cut) {
        snprintf(message, CIS_MESSAGE_CAPACITY, "the file ends before its last scan");
        return CIS_TRUNCATED;
    }
    return CIS_OK;
}

cis_status cis_jpeg_encode(uint8_t **data, size_t *size, const uint8_t *rgb, uint32_t width, uint32_t height, int quality, char *message) {
    struct jpeg_compress_struct info;
    memset(&info, 0, sizeof info);
    jpeg_errors errors;
    // Written by libjpeg between setjmp and longjmp, so they must survive the jump.
    struct {
        unsigned char *bytes;
        unsigned long count;
    } volatile *output = calloc(1, sizeof *output);
    *data = NULL;
    *size = 0;
    message[0] = 0;
    if (output == NULL) return CIS_NO_MEMORY;
    info.err = install(&errors, message);
    if (setjmp(errors.jump)) {
        jpeg_destroy_compress(&info);
        free(output->bytes);
        free((void *)output);
        return errors.status;
    }
    jpeg_create_compress(&info);
    jpeg_mem_dest(&info, (unsigned char **)&output->bytes, (unsigned long *)&output->count);
    info.image_width = width;
    info.image_height = height;
    info.input_components = 3;
    info.in_color_space = JCS_RGB;
    jpeg_set_defaults(&info);
    jpeg_set_quality(&info, quality, TRUE);
    jpeg_start_compress(&info, TRUE);
    while (info.next_scanline < info.image_height) {
        JSAMPROW row = (JSAMPROW)(rgb + (size_t)info.next_scanline * width * 3);
        jpeg_write_scanlines(&info, &row, 1);
    }
    jpeg_finish_compress(&info);
    jpeg_destroy_compress(&info);
    *data = output->bytes;
    *size = output->count;
    free((void *)output);
    return CIS_OK;
}

void cis_free(uint8_t *data) { free(data); }
