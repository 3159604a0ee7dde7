/* Badly formatted: the formatter's gate has to refuse it. */
int   badly_formatted( int x ){
  return x ; }
