/* The time line of a start as SVG: a row a file in the order of first reads, a bar a read, below them what came over the network. */
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "fs/base/fd.h"
#include "tools/cmd/output.h"
#include "tools/cmd/why-report.h"

#define ROWS_MAX   60u
#define ROW        15
#define LEFT       330 /* pixels of names */
#define WIDTH      1000
#define RIGHT      110
#define TOP        70
#define CURVE      90
#define PATH_SHOWN 50u
#define TICKS      8

static const char *const COLOURS[FETCH_TIERS] = {
	[FETCH_TIER_DECODED] = "#9ec9a4",
	[FETCH_TIER_CACHE] = "#4c9f70",
	[FETCH_TIER_DONOR] = "#e0a030",
	[FETCH_TIER_NETWORK] = "#c8483f",
};

typedef struct Plot {
	const WhyReport *report;
	FILE *file;
	WhyFile *rows; /* copies, by first read */
	size_t row_count;
	double span; /* microseconds */
} Plot;

static int compare_first(const void *left, const void *right)
{
	const WhyFile *one = left, *other = right;
	return one->first == other->first ? 0 : one->first < other->first ? -1 : 1;
}

/* Those that were waited for longest, in the order in which they were read. */
static int choose_rows(Plot *plot)
{
	const WhyReport *report = plot->report;
	plot->row_count = report->file_count < ROWS_MAX ? report->file_count : ROWS_MAX;
	plot->rows = calloc(plot->row_count + 1, sizeof(*plot->rows));
	if (!plot->rows)
		return -ENOMEM;
	memcpy(plot->rows, report->files, plot->row_count * sizeof(*plot->rows));
	qsort(plot->rows, plot->row_count, sizeof(*plot->rows), compare_first);
	return 0;
}

static double at(const Plot *plot, uint64_t time)
{
	return LEFT + (double)(time - plot->report->begin) / plot->span * WIDTH;
}

static void put_text(FILE *file, const char *text)
{
	for (; *text; text++) {
		if (*text == '<' || *text == '>' || *text == '&' || *text == '"')
			fprintf(file, "&#%d;", *text);
		else
			fputc((unsigned char)*text < ' ' ? '?' : *text, file);
	}
}

static void put_path(FILE *file, const char *path)
{
	size_t length = strlen(path);
	if (length > PATH_SHOWN) {
		fputs("…", file);
		path += length - PATH_SHOWN;
		/* Not in the middle of a character of UTF-8. */
		while (((unsigned char)*path & 0xc0) == 0x80)
			path++;
	}
	put_text(file, path);
}

static int bottom(const Plot *plot)
{
	return TOP + (int)plot->row_count * ROW;
}

static void draw_head(const Plot *plot)
{
	const WhyReport *report = plot->report;
	int height = bottom(plot) + CURVE + 60, width = LEFT + WIDTH + RIGHT;
	char fetched[OUTPUT_SIZE_TEXT];
	fprintf(plot->file,
		"<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%d\" height=\"%d\" viewBox=\"0 0 %d %d\" "
		"font-family=\"sans-serif\" font-size=\"11\">\n<rect width=\"%d\" height=\"%d\" fill=\"#fff\"/>\n",
		width, height, width, height, width, height);
	fputs("<text x=\"10\" y=\"22\" font-size=\"15\" font-weight=\"bold\">", plot->file);
	put_text(plot->file, report->mount->reference);
	fprintf(plot->file,
		"</text>\n<text x=\"10\" y=\"40\" fill=\"#555\">%u reads in %.2f s, %.2f s of it with somebody "
		"waiting; %s over the network. Reads from the kernel's page cache are not seen.</text>\n",
		report->read_count, plot->span / 1e6, (double)report->held_up / 1e6,
		output_size(report->total.fetched, fetched));
	int x = LEFT;
	for (size_t i = FETCH_TIERS; i-- > 0; x += 90)
		fprintf(plot->file,
			"<rect x=\"%d\" y=\"50\" width=\"11\" height=\"11\" fill=\"%s\"/><text x=\"%d\" "
			"y=\"60\">%s</text>\n",
			x, COLOURS[i], x + 16, why_sources[i]);
}

static void draw_axis(const Plot *plot)
{
	int low = bottom(plot) + CURVE + 10;
	for (int i = 0; i <= TICKS; i++) {
		double x = LEFT + (double)WIDTH * i / TICKS;
		fprintf(plot->file,
			"<line x1=\"%.1f\" y1=\"%d\" x2=\"%.1f\" y2=\"%d\" stroke=\"#ddd\"/>"
			"<text x=\"%.1f\" y=\"%d\" text-anchor=\"middle\" fill=\"#555\">%.2f s</text>\n",
			x, TOP, x, low, x, low + 15, plot->span / 1e6 * i / TICKS);
	}
}

static void draw_read(const Plot *plot, size_t row, const StartRead *read)
{
	double x = at(plot, read->time), width = (double)read->waited / plot->span * WIDTH;
	fprintf(plot->file, "<rect x=\"%.1f\" y=\"%d\" width=\"%.1f\" height=\"%d\" fill=\"%s\"%s/>\n", x,
		TOP + (int)row * ROW + 2, width < 2 ? 2 : width, ROW - 4, COLOURS[read->source],
		read->flags & START_READ_FAILED ? " stroke=\"#000\"" : "");
}

static void draw_rows(const Plot *plot)
{
	const WhyReport *report = plot->report;
	for (size_t row = 0; row < plot->row_count; row++) {
		const WhyFile *file = &plot->rows[row];
		int y = TOP + (int)row * ROW;
		if (row % 2 == 0)
			fprintf(plot->file,
				"<rect x=\"0\" y=\"%d\" width=\"%d\" height=\"%d\" fill=\"#000\" "
				"fill-opacity=\"0.03\"/>\n",
				y, LEFT + WIDTH + RIGHT, ROW);
		fprintf(plot->file, "<text x=\"%d\" y=\"%d\" text-anchor=\"end\">", LEFT - 8, y + ROW - 4);
		put_path(plot->file, file->path);
		fprintf(plot->file, "</text><text x=\"%d\" y=\"%d\" fill=\"#555\">%.0f ms</text>\n", LEFT + WIDTH + 8,
			y + ROW - 4, (double)file->sum.waited / 1000);
		for (uint32_t i = 0; i < report->read_count; i++) {
			const StartRead *read = &report->mount->record->entries[report->reads[i]];
			if (read->inode == file->inode)
				draw_read(plot, row, read);
		}
	}
}

/* Bytes that had come for reads, over time: each read's when it was answered, which is not in the order of reads. */
static int compare_answers(const void *left, const void *right)
{
	const StartRead *one = *(const StartRead *const *)left, *other = *(const StartRead *const *)right;
	uint64_t first = one->time + one->waited, second = other->time + other->waited;
	return first == second ? 0 : first < second ? -1 : 1;
}

static int draw_curve(const Plot *plot)
{
	const WhyReport *report = plot->report;
	int low = bottom(plot) + CURVE + 10;
	char size[OUTPUT_SIZE_TEXT];
	const StartRead **answers = calloc((size_t)report->read_count + 1, sizeof(const StartRead *));
	if (!answers)
		return -ENOMEM;
	for (uint32_t i = 0; i < report->read_count; i++)
		answers[i] = &report->mount->record->entries[report->reads[i]];
	qsort(answers, report->read_count, sizeof(const StartRead *), compare_answers);
	fprintf(plot->file, "<text x=\"%d\" y=\"%d\" text-anchor=\"end\">fetched for reads, %s</text>\n", LEFT - 8,
		low - CURVE / 2, output_size(report->total.fetched, size));
	fprintf(plot->file, "<polyline fill=\"none\" stroke=\"#c8483f\" stroke-width=\"1.5\" points=\"%d,%d", LEFT,
		low);
	uint64_t sum = 0;
	double total = report->total.fetched ? (double)report->total.fetched : 1;
	for (uint32_t i = 0; i < report->read_count; i++) {
		double x = at(plot, answers[i]->time + answers[i]->waited);
		fprintf(plot->file, " %.1f,%.1f", x, low - (double)sum / total * CURVE);
		sum += answers[i]->fetched;
		fprintf(plot->file, " %.1f,%.1f", x, low - (double)sum / total * CURVE);
	}
	fputs("\"/>\n", plot->file);
	free(answers);
	return 0;
}

static int draw(Plot *plot)
{
	int r = choose_rows(plot);
	if (r < 0)
		return r;
	draw_head(plot);
	draw_axis(plot);
	draw_rows(plot);
	r = draw_curve(plot);
	if (plot->report->file_count > plot->row_count)
		fprintf(plot->file,
			"<text x=\"10\" y=\"%d\" fill=\"#555\">%zu files more are not drawn: less was waited for "
			"them</text>\n",
			bottom(plot) + CURVE + 45, plot->report->file_count - plot->row_count);
	fputs("</svg>\n", plot->file);
	return r < 0 || ferror(plot->file) ? -ENOMEM : 0;
}

int why_plot(const WhyReport *report, const char *path, Error *error)
{
	_cleanup_free_ char *text = NULL;
	size_t size = 0;
	uint64_t span = report->end - report->begin;
	Plot plot = { .report = report, .span = span ? (double)span : 1, .file = open_memstream(&text, &size) };
	int r = plot.file ? draw(&plot) : -ENOMEM;
	if (plot.file && fclose(plot.file) != 0)
		r = -ENOMEM;
	free(plot.rows);
	if (r == 0)
		r = fd_replace_file(AT_FDCWD, path, text, size, 0644);
	return r < 0 ? error_set(error, r, "%s cannot be written: %s", path, error_text(NULL, r)) : 0;
}
