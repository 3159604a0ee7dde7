/* Divides whole numbers for a result with a fraction: the analyser's gate has to refuse it. */
double bad_analysis(int numerator);

double bad_analysis(int numerator)
{
	return numerator / 2;
}
