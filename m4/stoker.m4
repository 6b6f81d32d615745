# STOKER_REQUIRE(VARIABLE, MODULE, VERSION, DEBIAN-PACKAGE)
# Looks for MODULE, at least VERSION, by pkg-config and sets VARIABLE_CFLAGS and VARIABLE_LIBS. What is missing is
# gathered, so that STOKER_REQUIRE_ALL can refuse all of it in one message.
AC_DEFUN([STOKER_REQUIRE], [
	AC_REQUIRE([PKG_PROG_PKG_CONFIG])
	PKG_CHECK_MODULES([$1], [$2 >= $3], [],
		[stoker_missing="$stoker_missing
  $2 $3 or later (Debian package $4)"
		stoker_missing_packages="$stoker_missing_packages $4"])
])

AC_DEFUN([STOKER_REQUIRE_ALL], [
	AS_IF([test -n "$stoker_missing"], [AC_MSG_ERROR([these libraries were not found by pkg-config:$stoker_missing
On Debian, scripts/deps installs them, or: apt-get install$stoker_missing_packages])])
])

# STOKER_CFLAGS(VARIABLE, FLAGS)
# Appends to VARIABLE those FLAGS that the compiler accepts. -Werror here makes an unknown one an error.
AC_DEFUN([STOKER_CFLAGS], [
	for stoker_flag in $2
	do
		stoker_saved_CFLAGS=$CFLAGS
		CFLAGS="$CFLAGS -Werror $stoker_flag"
		AC_MSG_CHECKING([whether $CC accepts $stoker_flag])
		AC_COMPILE_IFELSE([AC_LANG_PROGRAM], [stoker_accepted=yes], [stoker_accepted=no])
		AC_MSG_RESULT([$stoker_accepted])
		CFLAGS=$stoker_saved_CFLAGS
		AS_IF([test "$stoker_accepted" = yes], [$1="$$1 $stoker_flag"])
	done
])

# STOKER_FIND_CUDA_H(VERSION)
# Looks for a cuda.h of VERSION (12.0 is 12000) or later: in $CUDA_HOME, where the compiler looks, in /usr/local/cuda. Sets
# CUDA_CPPFLAGS, and cuda_checked to the words for the summary, or leaves it as no.
AC_DEFUN([STOKER_FIND_CUDA_H], [
	AC_MSG_CHECKING([for a cuda.h to check against])
	stoker_saved_CPPFLAGS=$CPPFLAGS
	for stoker_place in ${CUDA_HOME:+"$CUDA_HOME/include"} '' /usr/local/cuda/include
	do
		stoker_flags=${stoker_place:+"-isystem $stoker_place"}
		CPPFLAGS="$stoker_saved_CPPFLAGS $stoker_flags"
		AC_COMPILE_IFELSE([AC_LANG_PROGRAM([[
			#include <cuda.h>
			#include <cudaTypedefs.h>
			#if CUDA_VERSION < $1
			#error
			#endif
		]])], [
			CUDA_CPPFLAGS=$stoker_flags
			cuda_checked="yes, ${stoker_place:-where the compiler looks}"
			break
		])
	done
	CPPFLAGS=$stoker_saved_CPPFLAGS
	AC_MSG_RESULT([$cuda_checked])
])
