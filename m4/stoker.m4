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
