// Everything of Pagemill's C++ library.
#pragma once

#include "pagemill/llm.h"
